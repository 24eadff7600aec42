"""The two graph operators as ONNX model-local functions: what runs where no plugin replaces the node.

The bodies mean what `train.ops` means, in standard operators, for any batch, height and width, in time and memory
linear in the pixels. They suit ONNX Runtime's CPU kernels: rows of channels-last maps are gathered along axis 0 (an
order of magnitude faster than columns of NCHW), and every decision that depends on a position (which patches lie over
a pixel, what happens at a border) is made on small integer tensors, never on a feature map.

In the text of the bodies `c_0_m1` stands for the constant int64 tensor [0, -1].
"""

from __future__ import annotations

import re
from itertools import product

import onnx
import onnx.parser

DOMAIN = "ignn"
"""Domain of the operators and of their functions; also the plugin's namespace."""
DOMAIN_VERSION = 1
OPSET = 20
"""ONNX operator set of the bodies and of the exported file."""

_CONSTANT = r"\bc(?:_m?\d+)+\b"
_OFFSETS = tuple(product(range(3), range(3)))

# Queries are taken in blocks of 16 x 16, the union of whose windows is 1.5 times one window, and the blocks are evened
# out. Where a query's window ends inside that union, 1e30 is added to the distance: further than any key.
_WINDOWED_KNN = """
WindowedKnn <k, window, scale, plugin_namespace, plugin_version> (query, key) => (index, edge)
{
  s = Constant <value_int: int = @scale> ()
  k_scalar = Constant <value_int: int = @k> ()
  k1 = Reshape (k_scalar, c_1)
  d = Constant <value_int: int = @window> ()
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  far = Constant <value_float = 1e30> ()
  near = Constant <value_float = 0.0> ()
  always = Constant <value = bool {1}> ()
  nine = Constant <value_float = 9.0> ()

  N = Shape <start = 0, end = 1> (query)
  E = Shape <start = 1, end = 2> (query)
  H = Shape <start = 2, end = 3> (query)
  W = Shape <start = 3, end = 4> (query)
  h = Shape <start = 2, end = 3> (key)
  w = Shape <start = 3, end = 4> (key)
  m1 = Div (H, c_2)
  m2 = Div (W, c_2)
  n1 = Div (h, c_2)
  n2 = Div (w, c_2)
  nine_e = Mul (c_9, E)
  patch_rows = Concat <axis = 0> (c_m1, nine_e)

  # The window: the whole grid if it fits, else the largest square that fits.
  fits1 = GreaterOrEqual (d, n1)
  fits2 = GreaterOrEqual (d, n2)
  fits = And (fits1, fits2)
  square = Min (d, n1, n2)
  side1 = Where (fits, n1, square)
  side2 = Where (fits, n2, square)
  half1 = Div (side1, c_2)
  half2 = Div (side2, c_2)
  last1 = Sub (n1, side1)
  last2 = Sub (n2, side2)
{blocks_1}
{blocks_2}

  # One common offset leaves every distance as it is and spares |key|^2 - 2 query.key most of its cancellation.
  query_float = Cast <to = 1> (query)
  key_float = Cast <to = 1> (key)
  offset = ReduceMean (key_float, c_0_2_3)
  map_h = Mul (padded1, c_2)
  map_h1 = Add (map_h, c_1)
  map_w = Mul (padded2, c_2)
  map_w1 = Add (map_w, c_1)
  key_h = Mul (n1, c_2)
  key_h1 = Add (key_h, c_1)
  key_w = Mul (n2, c_2)
  key_w1 = Add (key_w, c_1)
  query_after1 = Sub (map_h1, H)
  query_after2 = Sub (map_w1, W)
  query_pads = Concat <axis = 0> (c_0_0_0_0_0_0, query_after1, query_after2)
  query_padded = Pad (query_float, query_pads)
  query_centered = Sub (query_padded, offset)
  query_last = Transpose <perm = [0, 2, 3, 1]> (query_centered)
  pixel_rows = Concat <axis = 0> (c_m1, E)
  query_rows = Reshape (query_last, pixel_rows)
  key_after1 = Sub (key_h1, h)
  key_after2 = Sub (key_w1, w)
  key_pads = Concat <axis = 0> (c_0_0_0_0_0_0, key_after1, key_after2)
  key_padded = Pad (key_float, key_pads)
  key_centered = Sub (key_padded, offset)
  key_last = Transpose <perm = [0, 2, 3, 1]> (key_centered)
  key_rows = Reshape (key_last, pixel_rows)
  key_squares = ReduceSumSquare (key_centered, c_1)
  key_norm_mean = AveragePool <kernel_shape = [3, 3], strides = [2, 2]> (key_squares)
  key_norm_sum = Mul (key_norm_mean, nine)
  key_norm = Squeeze (key_norm_sum, c_1)

  # Where a patch's nine pixels, and a block's patches, lie in the rows of pixels.
  patch_row = Reshape (c_0_0_0_1_1_1_2_2_2, c_1_1_9)
  patch_column = Reshape (c_0_1_2_0_1_2_0_1_2, c_1_1_9)
  query_patch_row = Mul (patch_row, map_w1)
  query_patch = Add (query_patch_row, patch_column)
  key_patch_row = Mul (patch_row, key_w1)
  key_patch = Add (key_patch_row, patch_column)
  block_row_step = Mul (map_w1, c_2)
  block_rows_flat = Mul (range1, block_row_step)
  block_rows = Unsqueeze (block_rows_flat, c_1_2)
  block_columns_flat = Mul (range2, c_2)
  block_columns = Unsqueeze (block_columns_flat, c_0_2)
  block_corner = Add (block_rows, block_columns)
  block_pixels = Add (block_corner, query_patch)
  query_image = Mul (map_h1, map_w1)
  key_image = Mul (key_h1, key_w1)
  key_row_step = Mul (key_w1, c_2)

  image_blocks = Mul (blocks1, blocks2)
  trips1 = Mul (N, image_blocks)
  trips = Squeeze (trips1)
  index_blocks, edge_blocks = Loop (trips, always) <body = block (int64 trip, bool go) => (
    bool go_on, int32[Q, K] block_index, float[R, E] block_edge
  ) {
    go_on = Identity (go)
    trip1 = Reshape (trip, c_1)
    image = Div (trip1, image_blocks)
    image_end = Add (image, c_1)
    block_flat = Mod (trip1, image_blocks)
    block1 = Div (block_flat, blocks2)
    block2 = Mod (block_flat, blocks2)
{window_1}
{window_2}

    query_base_image = Mul (image, query_image)
    query_base_row = Mul (start1, block_row_step)
    query_base_column = Mul (start2, c_2)
    query_base_2 = Add (query_base_image, query_base_row)
    query_base = Add (query_base_2, query_base_column)
    query_pixels = Add (block_pixels, query_base)
    query_patches = Gather (query_rows, query_pixels)
    queries = Reshape (query_patches, patch_rows)

    key_base = Mul (image, key_image)
    key_rows_flat = Mul (keys1, key_row_step)
    key_rows_base = Add (key_rows_flat, key_base)
    key_rows_3d = Unsqueeze (key_rows_base, c_1_2)
    key_columns_flat = Mul (keys2, c_2)
    key_columns_3d = Unsqueeze (key_columns_flat, c_0_2)
    key_corner = Add (key_rows_3d, key_columns_3d)
    key_pixels = Add (key_corner, key_patch)
    key_patches = Gather (key_rows, key_pixels)
    keys = Reshape (key_patches, patch_rows)

    norm_starts = Concat <axis = 0> (image, low1, low2)
    norm_ends = Concat <axis = 0> (image_end, high1, high2)
    norm = Slice (key_norm, norm_starts, norm_ends)
    penalty1_4d = Unsqueeze (penalty1, c_1_3)
    penalty2_4d = Unsqueeze (penalty2, c_0_2)
    norm_rows = Add (norm, penalty1_4d)
    norm_4d = Add (norm_rows, penalty2_4d)
    count12 = Mul (count1, count2)
    queries_keys = Concat <axis = 0> (c_m1, count12)
    norm_2d = Reshape (norm_4d, queries_keys)
    distance = Gemm <alpha = -2.0, transB = 1> (queries, keys, norm_2d)
    nearest, local = TopK <axis = -1, largest = 0, sorted = 1> (distance, k1)

    local1 = Div (local, count2)
    local2 = Mod (local, count2)
    u = Add (local1, low1)
    v = Add (local2, low2)
    u_flat = Mul (u, n2)
    found = Add (u_flat, v)
    block_index = Cast <to = 6> (found)

    neighbor = Gather (keys, local)
    queries_3d = Unsqueeze (queries, c_1)
    difference = Sub (neighbor, queries_3d)
    absolute = Abs (difference)
    by_pixel_shape = Concat <axis = 0> (c_m1_9, E)
    by_pixel = Reshape (absolute, by_pixel_shape)
    block_edge = ReduceSum <keepdims = 0> (by_pixel, c_1)
  }>

  counts = Concat <axis = 0> (N, blocks1, blocks2, step1, step2, k1)
  index_6d = Reshape (index_blocks, counts)
  index_ordered = Transpose <perm = [0, 1, 3, 2, 4, 5]> (index_6d)
  index_shape = Concat <axis = 0> (N, padded1, padded2, k1)
  index_padded = Reshape (index_ordered, index_shape)
  grid = Concat <axis = 0> (m1, m2)
  index = Slice (index_padded, c_0_0, grid, c_1_2)

  edge_counts = Concat <axis = 0> (counts, E)
  edge_7d = Reshape (edge_blocks, edge_counts)
  edge_ordered = Transpose <perm = [0, 5, 6, 1, 3, 2, 4]> (edge_7d)
  edge_shape = Concat <axis = 0> (N, k1, E, padded1, padded2)
  edge_padded = Reshape (edge_ordered, edge_shape)
  edge_float = Slice (edge_padded, c_0_0, grid, c_3_4)
  edge = CastLike (edge_float, query)
}
"""

# Along one axis (1: rows, 2: columns): blocks per image, queries per block (a multiple of s), queries they cover.
_BLOCKS = """
  m_up# = Add (m#, c_15)
  count_up# = Div (m_up#, c_16)
  even_1# = Add (m#, count_up#)
  even_2# = Sub (even_1#, c_1)
  even_3# = Div (even_2#, count_up#)
  even_4# = Add (even_3#, s)
  even_5# = Sub (even_4#, c_1)
  even_6# = Div (even_5#, s)
  step# = Mul (even_6#, s)
  covered_1# = Add (m#, step#)
  covered_2# = Sub (covered_1#, c_1)
  blocks# = Div (covered_2#, step#)
  padded# = Mul (blocks#, step#)
  step_scalar# = Squeeze (step#)
  range# = Range (zero, step_scalar#, one)
"""

# Along one axis, in the loop: the first query, keys [low, high) = the union of the windows, penalty outside a window.
_WINDOW = """
    start# = Mul (block#, step#)
    position# = Add (range#, start#)
    centre# = Div (position#, s)
    first_1# = Sub (centre#, half#)
    first_2# = Max (first_1#, c_0)
    first# = Min (first_2#, last#)
    low# = Gather (first#, c_0)
    first_last# = Gather (first#, c_m1)
    high# = Add (first_last#, side#)
    low_scalar# = Squeeze (low#)
    high_scalar# = Squeeze (high#)
    keys# = Range (low_scalar#, high_scalar#, one)
    count# = Sub (high#, low#)
    first_column# = Unsqueeze (first#, c_1)
    into# = Sub (keys#, first_column#)
    before# = Less (into#, c_0)
    after# = GreaterOrEqual (into#, side#)
    outside# = Or (before#, after#)
    penalty# = Where (outside#, far, near)
"""

# Pixels fall into four classes by the parity of row and column: an even row has two patches over it (a: the one
# above, b: the one below), an odd row one (o); columns alike. Nine terms over four quarter-size maps, no scatter.
_ADAPN_GATHER = """
AdaPNGather <scale, eps, plugin_namespace, plugin_version> (features, index) => (folded)
{
  s_scalar = Constant <value_int: int = @scale> ()
  s = Reshape (s_scalar, c_1)
  epsilon = Constant <value_float: float = @eps> ()
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  half = Constant <value_float = 0.5> ()
  quarter = Constant <value_float = 0.25> ()
  eight = Constant <value_float = 8.0> ()
  nine = Constant <value_float = 9.0> ()
  always = Constant <value = bool {1}> ()

  N = Shape <start = 0, end = 1> (features)
  C = Shape <start = 1, end = 2> (features)
  H = Shape <start = 2, end = 3> (features)
  W = Shape <start = 3, end = 4> (features)
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
  h_odd_even = Mul (m1, c_2)
  h_odd = Add (h_odd_even, c_1)
  w_odd_even = Mul (m2, c_2)
  w_odd = Add (w_odd_even, c_1)
  pixels = Mul (s, s)
  row_width = Mul (s, C)
  block_width = Mul (pixels, C)
  channel_rows = Concat <axis = 0> (c_m1_1, C)

  features_float = Cast <to = 1> (features)
  after1 = Sub (h_odd, H)
  after2 = Sub (w_odd, W)
  pads = Concat <axis = 0> (c_0_0_0_0_0_0, after1, after2)
  padded = Pad (features_float, pads)
  channels_last = Transpose <perm = [0, 2, 3, 1]> (padded)

  # Statistics of the 3 x 3 query patches; squares are taken around the patch's mean (sums of squares would cancel).
  query_mean_first = AveragePool <kernel_shape = [3, 3], strides = [2, 2]> (padded)
  query_mean = Transpose <perm = [0, 2, 3, 1]> (query_mean_first)
  query_size = Concat <axis = 0> (m1, m2)
  query_reach = Mul (query_size, c_2)
{query_squares}
  query_variance = Div (query_squares, eight)
  query_variance_eps = Add (query_variance, epsilon)
  query_std = Sqrt (query_variance_eps)

  # The features as s x s blocks, channels last, and the statistics of the 3 x 3 patches of blocks.
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
  block_rows_shape = Concat <axis = 0> (c_m1, pixels, C)
  block_rows = Reshape (blocks, block_rows_shape)
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
  key_variance_eps = Add (key_variance, epsilon)
  key_std = Sqrt (key_variance_eps)

  query_std_rows = Reshape (query_std, channel_rows)
  query_mean_rows = Reshape (query_mean, channel_rows)
  key_std_rows = Reshape (key_std, channel_rows)
  key_mean_rows = Reshape (key_mean, channel_rows)

  # AdaPN is affine: z * gain + shift, per query and channel.
  index_long = Cast <to = 7> (index)
  batch_scalar = Squeeze (N)
  batch_range = Range (zero, batch_scalar, one)
  batch = Unsqueeze (batch_range, c_1_2)
  keys_per_image = Mul (n1, n2)
  key_base = Mul (batch, keys_per_image)
  neighbor_3d = Add (index_long, key_base)
  neighbor = Reshape (neighbor_3d, c_m1)
  neighbor_std = Gather (key_std_rows, neighbor)
  neighbor_mean = Gather (key_mean_rows, neighbor)
  gain_1 = Div (query_std_rows, neighbor_std)
  gain_mean = Mul (gain_1, neighbor_mean)
  shift_1 = Sub (query_mean_rows, gain_mean)
  gain_2 = Mul (gain_1, half)
  gain_4 = Mul (gain_1, quarter)
  shift_2 = Mul (shift_1, half)
  shift_4 = Mul (shift_1, quarter)

  # First block of every query's neighbor patch.
  u = Div (index_long, n2)
  v = Mod (index_long, n2)
  u_blocks = Mul (u, wk)
  uv = Add (u_blocks, v)
  uv_stride = Mul (uv, c_2)
  blocks_per_image = Mul (hk, wk)
  block_base = Mul (batch, blocks_per_image)
  corner_3d = Add (uv_stride, block_base)
  corner = Reshape (corner_3d, c_m1)
  queries_per_image = Mul (m1, m2)
  query_base = Mul (batch, queries_per_image)
{options_1}
{options_2}
  term_rows = Concat <axis = 0> (c_m1, count2)
{terms}

  # Bands of rows, so that what is gathered stays in the cache; their height divides the map's.
  wanted_1 = Div (c_65536, C)
  wanted_2 = Div (wanted_1, W)
  wanted_3 = Max (wanted_2, c_1)
  wanted = Min (wanted_3, c_64)
  limit = Constant <value_int = 65> ()
  heights = Range (one, limit, one)
  remainder = Mod (H, heights)
  divides = Equal (remainder, zero)
  small = LessOrEqual (heights, wanted)
  fits = And (divides, small)
  usable = Where (fits, heights, one)
  band = ReduceMax (usable, c_0)
  bands = Div (H, band)
  band_up = Add (band, c_1)
  class_height = Div (band_up, c_2)
  class_scalar = Squeeze (class_height)
  class_range = Range (zero, class_scalar, one)
  band_scalar = Squeeze (band)
  band_range = Range (zero, band_scalar, one)
  last_row = Sub (count1, c_1)
  class_row = Mul (count2, s)
  class_size = Mul (class_height, class_row)
  class_pair = Mul (class_size, c_2)
  x_scalar = Squeeze (W)
  x = Range (zero, x_scalar, one)
  x_parity = Mod (x, c_2)
  x_class = Mul (x_parity, class_size)
  x_half = Div (x, c_2)
  x_place = Mul (x_half, s)
  x_order = Add (x_class, x_place)
  sub_scalar = Squeeze (s)
  sub_flat = Range (zero, sub_scalar, one)
  sub = Unsqueeze (sub_flat, c_1)
  column_order = Add (sub, x_order)
  class_rows_shape = Concat <axis = 0> (c_m1, row_width)
  trips_1 = Mul (N, bands)
  trips = Squeeze (trips_1)
  out_bands = Loop (trips, always) <body = one_band (int64 trip, bool go) => (bool go_on, float[B, S, X, D] out_band) {
    go_on = Identity (go)
    trip_1 = Reshape (trip, c_1)
    image = Div (trip_1, bands)
    band_index = Mod (trip_1, bands)
    top = Mul (band_index, band)
    image_rows = Mul (image, count1)
    top_up = Add (top, c_1)
    first_e = Div (top_up, c_2)
    first_o = Div (top, c_2)
    position_e_1 = Add (class_range, first_e)
    position_e = Min (position_e_1, last_row)
    position_o_1 = Add (class_range, first_o)
    position_o = Min (position_o_1, last_row)
    rows_e = Add (position_e, image_rows)
    rows_o = Add (position_o, image_rows)
{classes}
    # Interleave the classes and lay the rows of the blocks out as rows of the s-times larger map.
    classes = Concat <axis = 0> (class_ee, class_eo, class_oe, class_oo)
    class_rows = Reshape (classes, class_rows_shape)
    y = Add (band_range, top)
    y_half = Div (y, c_2)
    y_odd = Mod (y, c_2)
    y_is_odd = Cast <to = 9> (y_odd)
    y_first = Where (y_is_odd, first_o, first_e)
    y_place = Sub (y_half, y_first)
    y_rows = Mul (y_place, class_row)
    y_class = Mul (y_odd, class_pair)
    y_order_1 = Add (y_rows, y_class)
    y_order = Unsqueeze (y_order_1, c_1_2)
    order = Add (y_order, column_order)
    out_band = Gather (class_rows, order)
  }>
  out_h = Mul (H, s)
  out_w = Mul (W, s)
  out_shape = Concat <axis = 0> (N, out_h, out_w, C)
  out_float = Reshape (out_bands, out_shape)
  out = CastLike (out_float, features)
  folded = Transpose <perm = [0, 3, 1, 2]> (out)
}
"""

# Along one axis: for the even pixels (a, b) and the odd ones (o), which query lies over them and which of its patch's
# three rows. At the borders a and b are the same, so that their mean is exact.
_OPTIONS = """
  size_up# = Add ({size}, c_1)
  count# = Div (size_up#, c_2)
  count_scalar# = Squeeze (count#)
  half_position# = Range (zero, count_scalar#, one)
  last_query# = Sub (m#, c_1)
  before# = Sub (half_position#, c_1)
  query_a# = Max (before#, c_0)
  query_b# = Min (half_position#, last_query#)
  query_o# = Identity (query_b#)
  is_inner_a# = Greater (half_position#, c_0)
  patch_a# = Where (is_inner_a#, c_2, c_0)
  is_inner_b# = Less (half_position#, m#)
  patch_b# = Where (is_inner_b#, c_0, c_2)
  patch_o# = Identity (c_1)
"""


def functions() -> list[onnx.FunctionProto]:
    """Return the functions that a model with nodes of domain `ignn` carries."""
    axes = ("1", "2")
    knn = _WINDOWED_KNN
    for axis in axes:
        knn = knn.replace(f"{{blocks_{axis}}}", _BLOCKS.replace("#", axis))
        knn = knn.replace(f"{{window_{axis}}}", _WINDOW.replace("#", axis))
    adapn = _ADAPN_GATHER
    for axis, size in zip(axes, ("H", "W"), strict=True):
        adapn = adapn.replace(f"{{options_{axis}}}", _OPTIONS.replace("#", axis).replace("{size}", size))
    parts = {
        "query_squares": _patch_sum("query_squares", "channels_last", "query_reach", "query_mean"),
        "key_sums": _patch_sum("key_sum", "block_mean", "key_reach")
        + _patch_sum("within_sum", "block_squares", "key_reach"),
        "key_squares": _patch_sum("key_squares", "block_mean", "key_reach", "key_mean"),
        "terms": "".join(_term_index(a, b) for a, b in product("abo", "abo")),
        "classes": "".join(_parity_class(rows, columns) for rows, columns in product("eo", "eo")),
    }
    for name, text in parts.items():
        adapn = adapn.replace(f"{{{name}}}", text)
    return [_parse(knn), _parse(adapn)]


def _patch_sum(result: str, source: str, reach: str, mean: str | None = None) -> str:
    """Return lines that sum `source` (N, H, W, C), or its squared distance from `mean`, over patches."""
    lines, total = [], ""
    for row, column in _OFFSETS:
        tag = f"{result}_{row}{column}"
        lines += [
            f"{tag}_end = Add ({reach}, c_{row}_{column})",
            f"{tag} = Slice ({source}, c_{row}_{column}, {tag}_end, c_1_2, c_2_2)",
        ]
        if mean:
            lines += [f"{tag}_d = Sub ({tag}, {mean})", f"{tag}_sq = Mul ({tag}_d, {tag}_d)"]
            tag += "_sq"
        last = (row, column) == _OFFSETS[-1]
        if total:
            new = result if last else f"{tag}_sum"
            lines.append(f"{new} = Add ({total}, {tag})")
            total = new
        else:
            total = tag
    return "\n".join("  " + line for line in lines) + "\n"


def _term_index(a: str, b: str) -> str:
    """Return lines that compute, for row option a and column option b, every pixel's query and block (row numbers)."""
    tag = f"term_{a}{b}"
    return f"""
  {tag}_row_1 = Mul (query_{a}1, m2)
  {tag}_row = Unsqueeze ({tag}_row_1, c_1)
  {tag}_grid = Add ({tag}_row, query_{b}2)
  {tag}_query_3d = Add ({tag}_grid, query_base)
  {tag}_patch_1 = Mul (patch_{a}1, wk)
  {tag}_patch_row = Unsqueeze ({tag}_patch_1, c_1)
  {tag}_patch = Add ({tag}_patch_row, patch_{b}2)
  {tag}_corner = Gather (corner, {tag}_query_3d)
  {tag}_block_3d = Add ({tag}_corner, {tag}_patch)
  {tag}_query = Reshape ({tag}_query_3d, term_rows)
  {tag}_block = Reshape ({tag}_block_3d, term_rows)
"""


def _parity_class(rows: str, columns: str) -> str:
    """Return lines that compute a band's pixels of one parity class: e (even) or o (odd), rows and columns."""
    name = rows + columns
    options = list(product({"e": "ab", "o": "o"}[rows], {"e": "ab", "o": "o"}[columns]))
    lines, total, shift = [], "", ""
    for a, b in options:
        tag = f"band_{a}{b}"
        lines += [
            f"{tag}_query = Gather (term_{a}{b}_query, rows_{rows})",
            f"{tag}_block = Gather (term_{a}{b}_block, rows_{rows})",
            f"{tag}_z = Gather (block_rows, {tag}_block)",
            f"{tag}_gain = Gather (gain_{len(options)}, {tag}_query)",
            f"{tag}_scaled = Mul ({tag}_z, {tag}_gain)",
            f"{tag}_shift = Gather (shift_{len(options)}, {tag}_query)",
        ]
        if total:
            lines += [
                f"{tag}_sum = Add ({total}, {tag}_scaled)",
                f"{tag}_shift_sum = Add ({shift}, {tag}_shift)",
            ]
            total, shift = f"{tag}_sum", f"{tag}_shift_sum"
        else:
            total, shift = f"{tag}_scaled", f"{tag}_shift"
    lines.append(f"class_{name} = Add ({total}, {shift})")
    return "\n".join("    " + line for line in lines) + "\n"


def _parse(text: str) -> onnx.FunctionProto:
    """Parse a body after declaring its `c_...` constants, those of a loop inside the loop.

    ONNX Runtime computes what calls of a function have in common once, unless a loop refers to it.
    """
    head, body = text.strip().split("{", 1)
    before, loop = body.split("<body =", 1)
    loop_head, rest = loop.split("{", 1)
    inside, after = rest.split("}>", 1)
    inside = _constants(inside, "l") + re.sub(_CONSTANT, lambda match: "l" + match[0][1:], inside)
    function = onnx.parser.parse_function(
        f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>\n{head}{{\n{_constants(before + after)}{before}'
        f"<body ={loop_head}{{\n{inside}}}>{after}"
    )
    loops = [node.attribute[0].g.node for node in function.node if node.op_type == "Loop"]
    for node in (*function.node, *(node for loop in loops for node in loop)):
        node.name = node.output[0]  # for profiles and error messages
    return function


def _constants(text: str, prefix: str = "c") -> str:
    """Return lines that declare the constants of a text, with another first letter if need be."""
    lines = []
    for name in sorted(set(re.findall(_CONSTANT, text))):
        values = ", ".join(part.replace("m", "-") for part in name.split("_")[1:])
        lines.append(f"  {prefix}{name[1:]} = Constant <value_ints = [{values}]> ()\n")
    return "".join(lines)
