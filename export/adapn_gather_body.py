"""AdaPNGather as a model-local function, see `export.functions`; and FoldBox, a part of it, see `export.stages`."""

from __future__ import annotations

from itertools import product

from export.patch_statistics_body import CONSTANTS, GRIDS, MAP_SIZE, gather_statistics

# Pixels fall into four classes by the parity of row and column: an even row has two patches over it (a: the one
# above, b: the one below), an odd row one (o); columns alike. Nine terms over four quarter-size maps, no scatter.
_FOLD = """
  # AdaPN is affine: z * gain + shift, per query and channel.
  index_long = Cast <to = 7> (index_3d)
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
  queries_per_image = Mul (queries1, queries2)
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
  limit = Constant <value = int64 {65}> ()
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
"""

_WHOLE = """
  index_3d = Identity (index)
  queries1 = Identity (m1)
  queries2 = Identity (m2)
  first1 = Identity (c_0)
  first2 = Identity (c_0)
  query_first1 = Identity (c_0)
  query_first2 = Identity (c_0)
"""

# What the fold of a box needs of the queries over it: their numbers, and their statistics.
_BOX_SIZE = """
  map_h = Gather (size, c_0)
  map_w = Gather (size, c_1)
  H = Gather (box, c_2)
  W = Gather (box, c_3)
  N = Identity (c_1)
"""

_BOX_QUERIES = """
  index_rows = Slice (index, query_first1, query_end1, c_0)
  index_box = Slice (index_rows, query_first2, query_end2, c_1)
  index_3d = Unsqueeze (index_box, c_0)
  row_numbers_1 = Squeeze (query_first1)
  row_numbers_2 = Squeeze (query_end1)
  row_numbers_3 = Range (row_numbers_1, row_numbers_2, one)
  row_numbers = Mul (row_numbers_3, m2)
  column_numbers_1 = Squeeze (query_first2)
  column_numbers_2 = Squeeze (query_end2)
  column_numbers = Range (column_numbers_1, column_numbers_2, one)
  row_numbers_2d = Unsqueeze (row_numbers, c_1)
  numbers_2d = Add (row_numbers_2d, column_numbers)
  numbers = Reshape (numbers_2d, c_m1)
  query_mean_rows = Gather (query_mean, numbers)
  query_std_rows = Gather (query_std, numbers)
"""

_BOX_AXIS = """
  origin# = Gather (box, c_@)
  first# = Div (origin#, c_2)
  query_before# = Sub (first#, c_1)
  query_first# = Max (query_before#, c_0)
  box_up# = Add ({size}, c_1)
  box_half# = Div (box_up#, c_2)
  query_after# = Add (first#, box_half#)
  query_end# = Min (query_after#, m#)
  queries# = Sub (query_end#, query_first#)
"""

# Along one axis: for the even pixels (a, b) and the odd ones (o), which query lies over them and which of its patch's
# three rows. At the borders a and b are the same, so that their mean is exact.
_OPTIONS = """
  size_up# = Add ({size}, c_1)
  count# = Div (size_up#, c_2)
  count_scalar# = Squeeze (count#)
  half_local# = Range (zero, count_scalar#, one)
  half_position# = Add (half_local#, first#)
  last_query# = Sub (m#, c_1)
  before# = Sub (half_position#, c_1)
  above# = Max (before#, c_0)
  below# = Min (half_position#, last_query#)
  query_a# = Sub (above#, query_first#)
  query_b# = Sub (below#, query_first#)
  query_o# = Identity (query_b#)
  is_inner_a# = Greater (half_position#, c_0)
  patch_a# = Where (is_inner_a#, c_2, c_0)
  is_inner_b# = Less (half_position#, m#)
  patch_b# = Where (is_inner_b#, c_0, c_2)
  patch_o# = Identity (c_1)
"""


_ATTRIBUTES = "scale, eps, plugin_namespace, plugin_version"


def text() -> str:
    """Return the text of `AdaPNGather`, as `export.body_text` reads it."""
    return _filled(
        f"""
AdaPNGather <{_ATTRIBUTES}> (features, key_mean, key_std, index) => (folded)
{{{CONSTANTS}{MAP_SIZE}{GRIDS}{gather_statistics()}{_WHOLE}{_FOLD}
  out_shape = Concat <axis = 0> (N, out_h, out_w, C)
  out_float = Reshape (out_bands, out_shape)
  out = CastLike (out_float, features)
  folded = Transpose <perm = [0, 3, 1, 2]> (out)
}}
"""
    )


def box_text() -> str:
    """Return the text of `FoldBox`: AdaPNGather of a box of the map, (s * height, s * width, C).

    Inputs: the outputs of `PatchStatistics`; index (m1, m2), of which only the queries over the box are read; size
    [H, W] of the map; box [top, left, height, width], top and left even.
    """
    axes = "".join(
        _BOX_AXIS.replace("#", axis).replace("@", place).replace("{size}", size)
        for axis, place, size in (("1", "0", "H"), ("2", "1", "W"))
    )
    grids = GRIDS.replace("(H, ", "(map_h, ").replace("(W, ", "(map_w, ")
    return _filled(
        f"""
FoldBox <scale> (block_rows, query_mean, query_std, key_mean_rows, key_std_rows, index, size, box) => (folded)
{{{CONSTANTS}
  C = Shape <start = 2, end = 3> (block_rows)
{_BOX_SIZE}{grids}{axes}{_BOX_QUERIES}{_FOLD}
  out_shape = Concat <axis = 0> (out_h, out_w, C)
  folded = Reshape (out_bands, out_shape)
}}
"""
    )


def _filled(body: str) -> str:
    """Return a text with its parts in the places that are named after them."""
    for axis, size in (("1", "H"), ("2", "W")):
        body = body.replace(f"{{options_{axis}}}", _OPTIONS.replace("#", axis).replace("{size}", size))
    parts = {
        "terms": "".join(_term_index(a, b) for a, b in product("abo", "abo")),
        "classes": "".join(_parity_class(rows, columns) for rows, columns in product("eo", "eo")),
    }
    for name, lines in parts.items():
        body = body.replace(f"{{{name}}}", lines)
    return body


def _term_index(a: str, b: str) -> str:
    """Return lines that compute, for row option a and column option b, every pixel's query and block (row numbers)."""
    tag = f"term_{a}{b}"
    return f"""
  {tag}_row_1 = Mul (query_{a}1, queries2)
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
