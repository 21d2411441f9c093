"""The Kullback-Leibler divergence of two networks' class probabilities, per pixel, at a temperature.

    T^2 mean_i sum_k p_ik (log p_ik - log q_ik),    p = softmax(teacher / T), q = softmax(student / T)

The mean is over the pixels i that count. The factor T^2 keeps the size of the gradient nearly constant when T changes.
The value does not grow with the number of images, pixels or classes, and is 0 for equal logits.

Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531, 2015, eq. 1 and
section 2 (the factor T^2).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["divergence"]


def divergence(teacher: Tensor, student: Tensor, counted: Tensor, temperature: float = 1.0) -> Tensor:
    """The scalar ``T^2 KL(teacher || student)``, in float32 or wider; 0 if no pixel counts.

    Args:
        teacher: logits (B, K, ...); no gradient flows into them.
        student: logits of the same shape.
        counted: (B, ...) bool, the pixels that count.
        temperature: T > 0.
    """
    wide = torch.promote_types(student.dtype, torch.float32)
    log_p = F.log_softmax(teacher.detach().to(wide) / temperature, 1)
    log_q = F.log_softmax(student.to(wide) / temperature, 1)
    each = (log_p.exp() * (log_p - log_q)).sum(1)
    return temperature**2 * (each * counted).sum() / counted.sum().clamp_min(1)
