"""Rein: trained tokens refine the output of each block of a frozen encoder, and can be the queries of the decoder.

Block i has tokens T_i (m, c) and features f (n, c). With ``S = softmax(f T_i^T / sqrt(c))`` over the m tokens, the
output is ``f + scale ((S[:, 1:] (T_i[1:] W_T + b_T) + f) W_f + b_f)``. With a rank, ``T_i = A_i B_i``. With the link,
``Q_i = T_i W_Q + b_Q``, and a linear layer merges the maximum, the mean and the last of all Q_i into the queries (m,
256). Tokens start uniform in [-v, v] with ``v = sqrt(6 / (3 * 16^2 + c))``; the two factors of rank r use ``sqrt(c r)``
instead of ``c``. The scale starts at 0.001, and linear layers are initialised as torch does. In an encoder of several
stages, each stage has its own tokens and layers. Then there is no scale, W_f and b_f start at zero, and the queries of
the stages are summed.

Source: Wei et al., "Stronger, fewer, & superior: harnessing vision foundation models for domain generalized semantic
segmentation", CVPR 2024, section 3 and algorithm 1; details as in its release.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from hardy.errors import InputError, within
from hardy.networks.base import Network
from hardy.networks.parts.stages import traced
from hardy.tuning._blocks import BlockStage, block_stages
from hardy.tuning._rein_tokens import Refined, ReinTokens
from hardy.tuning.base import Tuner, freeze_encoder

__all__ = ["Rein"]


class Rein(Tuner):
    """Trains the tokens with their layers, the decoder and the heads; the encoder is frozen in evaluation mode.

    The defaults are the paper's full method without the link.

    Args:
        core: refine the features of every block; without it only the link is left.
        link: set `Network.queries`, for a decoder that reads them; there is one query for each token.
        share: use the same W_T, W_f and W_Q for all blocks of a stage.
        rank: of the tokens of a block, 1 or more; None for a full matrix.
        tokens: m, 2 or more.
        zero_start: W_f and b_f start at zero and there is no scale; None: True for encoders of several stages.

    Raises:
        InputError: for fewer than 2 tokens, a rank below 1, and without both core and link.
    """

    def __init__(
        self,
        *,
        core: bool = True,
        link: bool = False,
        share: bool = True,
        rank: int | None = 16,
        tokens: int = 100,
        zero_start: bool | None = None,
    ) -> None:
        within("Rein.tokens", tokens, 2)
        if rank is not None:
            within("Rein.rank", rank, 1)
        if not (core or link):
            raise InputError("Rein: with core: false and link: false only the decoder is trained; use frozen")
        self.core, self.link, self.share = core, link, share
        self.rank, self.tokens, self.zero_start = rank, tokens, zero_start

    def attach(self, network: Network) -> None:
        """See `Tuner.attach`."""
        stages = block_stages(network)
        for stage in stages:
            if self.rank is not None and self.rank > stage.width:
                raise InputError(
                    f"tuner: rein: rank {self.rank} is larger than the {stage.width} channels of "
                    f"{network.known_as(stage.names[0])}; use a rank up to {min(each.width for each in stages)}"
                )
        if self.link and not traced(network, lambda copied, image: self._read(copied, stages, image)):
            raise InputError(
                f"tuner: rein: link has no effect, because nothing in {type(network).__name__} reads the queries "
                "(Network.queries); leave link out, or use a decoder with queries"
            )
        freeze_encoder(network)
        self._insert(network, stages)

    def _insert(self, network: Network, stages: Sequence[BlockStage]) -> None:
        """Put the tokens into ``network`` as its child ``rein``, and wrap the blocks."""
        made = [self._tokens(network, stage, several=len(stages) > 1) for stage in stages]
        network.rein = nn.ModuleList(made)
        for stage, tokens in zip(stages, made, strict=True):
            for number, name in enumerate(stage.names if self.core else ()):
                network.set_submodule(name, Refined(network.get_submodule(name), tokens, number))
        if self.link:
            network.link([f"rein.{number}" for number in range(len(made))])

    def _tokens(self, network: Network, stage: BlockStage, *, several: bool) -> ReinTokens:
        like = next(network.get_submodule(stage.names[0]).parameters())
        return ReinTokens(
            len(stage.names),
            stage.width,
            axis=stage.axis,
            prefix=stage.prefixes,
            tokens=self.tokens,
            rank=self.rank,
            core=self.core,
            link=self.link,
            share=self.share,
            zero_start=several if self.zero_start is None else self.zero_start,
            device=like.device,
            dtype=like.dtype,
        )

    def _read(self, copied: Network, stages: Sequence[BlockStage], image: Tensor) -> bool:
        """Whether ``copied``, a network without values, reads the queries when it is tuned; changes it in place."""
        self._insert(copied, stages)
        calls: list[ReinTokens] = []
        for module in copied.modules():
            if isinstance(module, ReinTokens):
                module.merge.register_forward_hook(lambda one, *_: calls.append(one))
        copied.outputs(image)
        return bool(calls)
