"""Training: data in, checkpoint out."""

from train.checkpoint import load_checkpoint, save_checkpoint
from train.config import IGNNConfig
from train.model import IGNN

__all__ = ["IGNN", "IGNNConfig", "load_checkpoint", "save_checkpoint"]
