"""The one place that imports ONNX Runtime, with its telemetry off: enlarging a picture sends nothing anywhere.

From 1.32 on ONNX Runtime looks up an outside host, and keeps a database and a device id in the user's cache. It reads
the variable while it loads; `disable_telemetry_events()` afterwards is too late. A value that the user has set stays.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
