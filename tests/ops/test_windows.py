"""Windows, flips and scales against averages worked out by hand."""

import pytest
import torch

from hardy.errors import InputError
from hardy.ops.windows import flipped, scaled, sliding, starts, views


def pixelwise(images):
    """A map that looks at one pixel at a time: windows and flips cannot change what it says."""
    return torch.cat([images.sum(1, keepdim=True), images[:, :1] - images[:, 1:2], images[:, 2:] * 3], 1)


def position(images):
    """Logits that depend on where in its window a pixel is: (K=2) column number, row number."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, dtype=torch.float32).view(1, 1, -1, 1).expand(len(images), 1, height, width)
    columns = torch.arange(width, dtype=torch.float32).view(1, 1, 1, -1).expand(len(images), 1, height, width)
    return torch.cat([columns, rows], 1)


@pytest.mark.parametrize(
    ("length", "window", "stride", "expected"),
    [
        (10, 4, 3, [0, 3, 6]),
        (10, 4, 4, [0, 4, 6]),
        (10, 4, 2, [0, 2, 4, 6]),
        (8, 4, 4, [0, 4]),
        (4, 4, 1, [0]),
        (3, 4, 4, [0]),
        (5, 4, 4, [0, 1]),
    ],
)
def test_starts_by_hand(length, window, stride, expected):
    assert starts(length, window, stride) == expected


def test_windows_cover_every_pixel_and_never_leave_the_image():
    for length in range(1, 40):
        for window in range(1, 12):
            for stride in range(1, window + 1):
                covered = set()
                for start in starts(length, window, stride):
                    inside = range(start, min(start + window, length))
                    assert len(inside) == min(window, length)
                    covered.update(inside)
                assert covered == set(range(length))


@pytest.mark.parametrize("stride", [0, 5])
def test_a_stride_that_leaves_gaps_is_refused(stride):
    with pytest.raises(InputError, match=f"window 4 with stride {stride}"):
        starts(10, 4, stride)


@pytest.mark.parametrize("window", [(7, 9), (20, 9), (7, 20), (50, 50)])
def test_a_window_as_large_as_the_image_is_the_plain_map(window):
    images = torch.rand(2, 3, 7, 9)
    assert torch.equal(sliding(position, images, window, window), position(images))


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_a_pixelwise_map_is_unchanged_at_any_size(average):
    images = torch.rand(2, 3, 13, 17)
    plain = pixelwise(images)
    for window, stride in (((5, 6), (2, 5)), ((13, 4), (13, 1)), ((4, 17), (3, 9)), ((1, 1), (1, 1))):
        seen = sliding(pixelwise, images, window, stride, average)
        expected = plain if average == "logits" else plain.log_softmax(1)
        torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-6)


def test_overlaps_are_averaged_by_hand():
    # One row of 5 pixels, windows of 3 starting at 0 and 2: pixel 2 is column 2 of the first and 0 of the second.
    seen = sliding(position, torch.zeros(1, 3, 1, 5), (1, 3), (1, 2))
    assert seen[0, 0, 0].tolist() == [0.0, 1.0, 1.0, 1.0, 2.0]
    assert seen[0, 1, 0].tolist() == [0.0] * 5


def test_mean_of_probabilities_by_hand():
    # As above; at pixel 2 the softmax of (2, 0) and of (0, 0) are averaged, and the result is its logarithm.
    seen = sliding(position, torch.zeros(1, 3, 1, 5), (1, 3), (1, 2), "probabilities").softmax(1)
    first = torch.tensor(2.0).sigmoid()
    torch.testing.assert_close(seen[0, 0, 0, 2], (first + 0.5) / 2)
    torch.testing.assert_close(seen.sum(1), torch.ones(1, 1, 5))


def test_flips_of_an_equivariant_map_change_nothing_and_others_are_averaged():
    images = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(flipped(pixelwise, images), pixelwise(images))
    # Column c and, mirrored, 4 - c: their mean is 2 everywhere.
    assert torch.equal(flipped(position, images)[:, 0], torch.full((2, 4, 5), 2.0))


def test_scales_resize_images_and_logits_back():
    images = torch.full((1, 3, 8, 12), 0.25)
    sizes = []

    def forward(x):
        sizes.append(tuple(x.shape[-2:]))
        return pixelwise(x) * len(sizes)

    seen = scaled(forward, images, (0.5, 1.0, 1.75))
    assert sizes == [(4, 6), (8, 12), (14, 21)]
    # Constant images stay constant: the mean of 1, 2 and 3 times the plain logits.
    torch.testing.assert_close(seen, pixelwise(images) * 2)


@pytest.mark.parametrize("scales", [(), (1.0, 0.0), (-1.0,)])
def test_impossible_scales_are_refused(scales):
    with pytest.raises(InputError, match="scales"):
        scaled(pixelwise, torch.zeros(1, 3, 4, 4), scales)


def test_views_nest_windows_in_flips_in_scales():
    images = torch.rand(1, 3, 12, 10)
    seen = []

    def forward(x):
        seen.append(tuple(x.shape[-2:]))
        return pixelwise(x)

    views(forward, window=(6, 6), flip=True, scales=(0.5, 1.0))(images)
    # 6x5 is one window. 12x10 with windows of 6 and the default stride of 4: rows 0 4 6, columns 0 4.
    assert seen == [(6, 5)] * 2 + [(6, 6)] * 12
    assert views(forward) is forward


def test_half_precision_logits_are_averaged_in_float32():
    seen = sliding(lambda x: pixelwise(x).half(), torch.rand(1, 3, 6, 6), (4, 4), (2, 2))
    assert seen.dtype == torch.float32
