"""Operations below autograd, grouped by their effect on channels (names without a trailing underscore)."""

__all__ = ["LIKE", "MOVES", "POINTWISE", "REDUCTIONS", "SATURATING", "SOFTMAXES", "SPATIAL"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MOVES = _names("""
    _reshape_alias _to_copy _unsafe_view alias channel_shuffle clone constant_pad_nd contiguous detach diagonal expand
    flip gather index index_select lift_fresh narrow permute pixel_shuffle pixel_unshuffle repeat reshape roll select
    slice split split_with_sizes squeeze t transpose unbind unfold unsafe_split unsqueeze view
""")
"""Operations that move elements without changing them: they are applied to the tags as to the data."""

POINTWISE = _names("_prelu_kernel bernoulli dropout hardswish log_sigmoid_forward native_dropout rrelu_with_noise")
"""Elementwise operations that torch does not tag as pointwise."""

SATURATING = _names("hardsigmoid sigmoid")
"""Operations that map zero to another value; their results are weights of channels, not channels."""

SOFTMAXES = _names("_log_softmax _safe_softmax _softmax")

REDUCTIONS = _names("""
    all amax amin any argmax argmin linalg_vector_norm logsumexp max mean min norm prod std std_mean sum var var_mean
""")

SPATIAL = _names("""
    _adaptive_avg_pool2d _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact2d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_max_pool2d avg_pool1d avg_pool2d grid_sampler_2d max_pool2d max_pool2d_with_indices
    reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d upsample_bicubic2d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d
""")
"""Operations within the map of each channel."""

LIKE = _names("""
    as_strided empty_like full_like new_empty new_empty_strided new_full new_ones new_zeros ones_like rand_like
    randn_like zero zeros_like
""")
"""Operations whose result does not depend on the elements, and ``as_strided``."""
