"""AdaPNGather as a model-local function: see `export.functions`."""

from __future__ import annotations

from itertools import product

# Pixels fall into four classes by the parity of row and column: an even row has two patches over it (a: the one
# above, b: the one below), an odd row one (o); columns alike. Nine terms over four quarter-size maps, no scatter.
_BODY = """
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


def text() -> str:
    """Return the function's text, as `export.body_text` reads it."""
    body = _BODY
    for axis, size in (("1", "H"), ("2", "W")):
        body = body.replace(f"{{options_{axis}}}", _OPTIONS.replace("#", axis).replace("{size}", size))
    parts = {
        "query_squares": _patch_sum("query_squares", "channels_last", "query_reach", "query_mean"),
        "key_sums": _patch_sum("key_sum", "block_mean", "key_reach")
        + _patch_sum("within_sum", "block_squares", "key_reach"),
        "key_squares": _patch_sum("key_squares", "block_mean", "key_reach", "key_mean"),
        "terms": "".join(_term_index(a, b) for a, b in product("abo", "abo")),
        "classes": "".join(_parity_class(rows, columns) for rows, columns in product("eo", "eo")),
    }
    for name, lines in parts.items():
        body = body.replace(f"{{{name}}}", lines)
    return body


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
