// plugins/kernels/geometry.h as a host library.
#include "../../../plugins/kernels/geometry.h"

extern "C" {
int patch_count(int n) { return ignn::patch_count(n); }
int window_side(int window, int n, int other) { return ignn::window_side(window, n, other); }
int window_origin(int i, int scale, int side, int n) { return ignn::window_origin(i, scale, side, n); }
int first_cover(int y, int m) { return ignn::first_cover(y, m); }
int last_cover(int y, int m) { return ignn::last_cover(y, m); }
int mapped_shift(int i, int u, int scale) { return ignn::mapped_shift(i, u, scale); }
int cropped_size(int n, int scale) { return ignn::cropped_size(n, scale); }
}
