"""The statistics of AdaPN as text: KeyStatistics, and PatchStatistics, with which the stages begin."""

from __future__ import annotations

from itertools import product

# The same lines stand in every function of AdaPN: where a runtime inlines them, it finds what is equal by its text.
CONSTANTS = """
  s_scalar = Constant <value_int: int = @scale> ()
  s = Reshape (s_scalar, c_1)
  zero = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  half = Constant <value = float {0.5}> ()
  quarter = Constant <value = float {0.25}> ()
  eight = Constant <value = float {8.0}> ()
  nine = Constant <value = float {9.0}> ()
  always = Constant <value = bool {1}> ()
"""

MAP_SIZE = """
  N = Shape <start = 0, end = 1> (features)
  C = Shape <start = 1, end = 2> (features)
  H = Shape <start = 2, end = 3> (features)
  W = Shape <start = 3, end = 4> (features)
"""

GRIDS = """
  m1 = Div (H, c_2)
  m2 = Div (W, c_2)
  h = Div (H, s)
  w = Div (W, s)
  n1 = Div (h, c_2)
  n2 = Div (w, c_2)
  wk_even = Mul (n2, c_2)
  wk = Add (wk_even, c_1)
  hk_even = Mul (n1, c_2)
  hk = Add (hk_even, c_1)
  pixels = Mul (s, s)
  row_width = Mul (s, C)
  channel_rows = Concat <axis = 0> (c_m1_1, C)
"""

_FEATURES = """
  minus_one = Constant <value = float {-1.0}> ()
  minus_epsilon = LeakyRelu <alpha: float = @eps> (minus_one)
  h_odd_even = Mul (m1, c_2)
  h_odd = Add (h_odd_even, c_1)
  w_odd_even = Mul (m2, c_2)
  w_odd = Add (w_odd_even, c_1)
  block_width = Mul (pixels, C)
  features_float = Cast <to = 1> (features)
  after1 = Sub (h_odd, H)
  after2 = Sub (w_odd, W)
  pads = Concat <axis = 0> (c_0_0_0_0_0_0, after1, after2)
  padded = Pad (features_float, pads)
  channels_last = Transpose <perm = [0, 2, 3, 1]> (padded)
"""

_QUERY_STATISTICS = """
  # Statistics of the 3 x 3 query patches; squares are taken around the patch's mean (sums of squares would cancel).
  query_mean_first = AveragePool <kernel_shape = [3, 3], strides = [2, 2]> (padded)
  query_mean = Transpose <perm = [0, 2, 3, 1]> (query_mean_first)
  query_size = Concat <axis = 0> (m1, m2)
  query_reach = Mul (query_size, c_2)
{query_squares}
  query_variance = Div (query_squares, eight)
  query_variance_eps = Sub (query_variance, minus_epsilon)
  query_std = Sqrt (query_variance_eps)
  query_std_rows = Reshape (query_std, channel_rows)
  query_mean_rows = Reshape (query_mean, channel_rows)
"""

_BLOCKS = """
  # The features as s x s blocks, channels last.
  cropped_h = Mul (h, s)
  cropped_w = Mul (w, s)
  crop = Concat <axis = 0> (cropped_h, cropped_w)
  cropped = Slice (channels_last, c_0_0, crop, c_1_2)
  split_shape = Concat <axis = 0> (N, h, s, w, row_width)
  split = Reshape (cropped, split_shape)
  gathered_rows = Transpose <perm = [0, 1, 3, 2, 4]> (split)
  blocks_shape = Concat <axis = 0> (N, h, w, block_width)
  blocks_tight = Reshape (gathered_rows, blocks_shape)
  block_after1 = Sub (hk, h)
  block_after2 = Sub (wk, w)
  block_pads = Concat <axis = 0> (c_0_0_0_0_0, block_after1, block_after2, c_0)
  blocks = Pad (blocks_tight, block_pads)
"""

_BLOCK_ROWS = """
  block_rows_shape = Concat <axis = 0> (c_m1, pixels, C)
  block_rows = Reshape (blocks, block_rows_shape)
"""

_KEY_STATISTICS = """
  # Statistics of the 3 x 3 patches of blocks.
  blocks_5d_shape = Concat <axis = 0> (N, hk, wk, pixels, C)
  blocks_5d = Reshape (blocks, blocks_5d_shape)
  block_mean_5d = ReduceMean (blocks_5d, c_3)
  block_mean = Squeeze (block_mean_5d, c_3)
  block_centered = Sub (blocks_5d, block_mean_5d)
  block_squares = ReduceSumSquare <keepdims = 0> (block_centered, c_3)
  key_size = Concat <axis = 0> (n1, n2)
  key_reach = Mul (key_size, c_2)
{key_sums}
  key_mean = Div (key_sum, nine)
{key_squares}
  pixels_float = Cast <to = 1> (pixels)
  key_squares_between = Mul (key_squares, pixels_float)
  key_squares_all = Add (key_squares_between, within_sum)
  count = Mul (pixels, c_9)
  count_less_one = Sub (count, c_1)
  count_float = Cast <to = 1> (count_less_one)
  key_variance = Div (key_squares_all, count_float)
  key_variance_eps = Sub (key_variance, minus_epsilon)
  key_std = Sqrt (key_variance_eps)
"""

_KEY_ROWS = """
  key_std_rows = Reshape (key_std, channel_rows)
  key_mean_rows = Reshape (key_mean, channel_rows)
"""


def key_text() -> str:
    """Return the text of `KeyStatistics`, as `export.body_text` reads it."""
    return f"""
KeyStatistics <scale, eps, plugin_namespace, plugin_version> (features) => (key_mean, key_std)
{{{CONSTANTS}{MAP_SIZE}{GRIDS}{_FEATURES}{_BLOCKS}{_key_statistics()}}}
"""


def gather_statistics() -> str:
    """Return the lines of `AdaPNGather` that compute blocks and query statistics of `features`, and take the keys'."""
    return f"{_FEATURES}{_query_statistics()}{_BLOCKS}{_BLOCK_ROWS}{_KEY_ROWS}"


def stage_text() -> str:
    """Return the text of `PatchStatistics`: what of AdaPNGather all neighbors of a map (1, C, H, W) have in common.

    Outputs: the map's blocks (blocks, s * s, C), and the mean and deviation of each query and key patch,
    (m1 * m2, 1, C) and (n1 * n2, 1, C).
    """
    outputs = "block_rows, query_mean_rows, query_std_rows, key_mean_rows, key_std_rows"
    return f"""
PatchStatistics <scale, eps> (features) => ({outputs})
{{{CONSTANTS}{MAP_SIZE}{GRIDS}{_FEATURES}{_query_statistics()}{_BLOCKS}{_BLOCK_ROWS}{_key_statistics()}{_KEY_ROWS}}}
"""


def _query_statistics() -> str:
    squares = _patch_sum("query_squares", "channels_last", "query_reach", "query_mean")
    return _QUERY_STATISTICS.replace("{query_squares}", squares)


def _key_statistics() -> str:
    parts = {
        "key_sums": _patch_sum("key_sum", "block_mean", "key_reach")
        + _patch_sum("within_sum", "block_squares", "key_reach"),
        "key_squares": _patch_sum("key_squares", "block_mean", "key_reach", "key_mean"),
    }
    text = _KEY_STATISTICS
    for name, lines in parts.items():
        text = text.replace(f"{{{name}}}", lines)
    return text


def _patch_sum(result: str, source: str, reach: str, mean: str | None = None) -> str:
    """Return lines that sum `source` (N, H, W, C), or its squared distance from `mean`, over patches."""
    lines, total = [], ""
    offsets = list(product(range(3), range(3)))
    for row, column in offsets:
        tag = f"{result}_{row}{column}"
        lines += [
            f"{tag}_end = Add ({reach}, c_{row}_{column})",
            f"{tag} = Slice ({source}, c_{row}_{column}, {tag}_end, c_1_2, c_2_2)",
        ]
        if mean:
            lines += [f"{tag}_d = Sub ({tag}, {mean})", f"{tag}_sq = Mul ({tag}_d, {tag}_d)"]
            tag += "_sq"
        last = (row, column) == offsets[-1]
        if total:
            new = result if last else f"{tag}_sum"
            lines.append(f"{new} = Add ({total}, {tag})")
            total = new
        else:
            total = tag
    return "\n".join("  " + line for line in lines) + "\n"
