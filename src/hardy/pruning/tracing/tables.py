"""Operations below autograd, by what they do to channels (their names without the trailing underscore)."""

__all__ = ["LIKE", "MOVES", "POINTWISE", "REDUCTIONS", "SATURATING", "SOFTMAXES", "SPATIAL"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MOVES = _names("""
    _reshape_alias _to_copy _unsafe_view alias channel_shuffle clone constant_pad_nd contiguous detach diagonal expand
    flip gather index index_select lift_fresh narrow permute pixel_shuffle pixel_unshuffle repeat reshape roll select
    slice split split_with_sizes squeeze t transpose unbind unfold unsafe_split unsqueeze view
""")
"""Operations that move elements and change none: they are applied to the labels as they are to the data."""

POINTWISE = _names("_prelu_kernel bernoulli dropout hardswish log_sigmoid_forward native_dropout rrelu_with_noise")
"""Elementwise operations that do not say so themselves."""

SATURATING = _names("hardsigmoid sigmoid")
"""Operations that turn a zero into something else: what goes through them weighs channels and does not make them."""

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
"""Operations within each channel's map."""

LIKE = _names("""
    as_strided empty_like full_like new_empty new_empty_strided new_full new_ones new_zeros ones_like rand_like
    randn_like zero zeros_like
""")
"""Operations that read no element, or not by place."""
