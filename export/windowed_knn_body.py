"""WindowedKnn as a model-local function: see `export.functions`."""

from __future__ import annotations

# Queries are taken in blocks of 16 x 16, the union of whose windows is 1.5 times one window, and the blocks are evened
# out. Where a query's window ends inside that union, 1e30 is added to the distance: further than any key.
_BODY = """
{head}
{
  s = Constant <value_int: int = @scale> ()
  k_scalar = Constant <value_int: int = @k> ()
  k1 = Reshape (k_scalar, c_1)
  d = Constant <value_int: int = @window> ()
  zero = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  far = Constant <value = float {1e30}> ()
  near = Constant <value = float {0.0}> ()
  always = Constant <value = bool {1}> ()
  nine = Constant <value = float {9.0}> ()

  N = Shape <start = 0, end = 1> (query)
  E = Shape <start = 1, end = 2> (query)
  H = Shape <start = 2, end = 3> (query)
  W = Shape <start = 3, end = 4> (query)
  h = Shape <start = 2, end = 3> (key)
  w = Shape <start = 3, end = 4> (key)
{origin}
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
    in_box# = Add (range#, start#)
    position# = Add (in_box#, origin#)
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


# Constants of their own: ONNX Runtime warns of an Identity of a constant that a Loop reads.
_WHOLE = """
  origin1 = Constant <value = int64[1] {0}> ()
  origin2 = Constant <value = int64[1] {0}> ()
"""

_BOX = """
  origin1 = Gather (origin, c_0)
  origin2 = Gather (origin, c_1)
"""


def text() -> str:
    """Return the text of `WindowedKnn`, as `export.body_text` reads it."""
    head = "WindowedKnn <k, window, scale, plugin_namespace, plugin_version> (query, key) => (index, edge)"
    return _filled(head, _WHOLE)


def box_text() -> str:
    """Return the text of `BoxedKnn`: WindowedKnn of a part of the queries, whose first patch is number `origin` [2]."""
    return _filled("BoxedKnn <k, window, scale> (query, key, origin) => (index, edge)", _BOX)


def _filled(head: str, origin: str) -> str:
    body = _BODY.replace("{head}", head).replace("{origin}", origin)
    for axis in ("1", "2"):
        body = body.replace(f"{{blocks_{axis}}}", _BLOCKS.replace("#", axis))
        body = body.replace(f"{{window_{axis}}}", _WINDOW.replace("#", axis))
    return body
