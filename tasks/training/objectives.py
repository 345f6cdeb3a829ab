"""Build the loss that the settings name. A new loss is a file in `tasks/training/losses`, and an entry here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import has_static_embedding_input
from torch import nn

from tasks.training.losses.all_positives import AllPositives
from tasks.training.losses.cached import CachedInfoNCE
from tasks.training.losses.gist import Guided
from tasks.training.losses.infonce import InfoNCE
from tasks.training.losses.kl import SoftLabelKL
from tasks.training.losses.margin_mse import MarginMSE
from tasks.training.losses.pairs import Pairs
from tasks.training.rotation import Rotation
from tasks.training.train_config import Objective, TrainConfig
from tasks.training.training_rows import Rows


@dataclass(frozen=True)
class Wanted:
    """What a loss is built from. positives: columns of positives in a batch."""

    config: TrainConfig
    model: SentenceTransformer
    known: Pairs
    soft: Pairs
    positives: int

    @property
    def scale(self) -> float:
        """What cosines are multiplied by."""
        return 1 / self.config.temperature


def loss_of(config: TrainConfig, model: SentenceTransformer, rows: Rows, rotation: Rotation) -> nn.Module:
    """Return the loss of the objective.

    Raises:
        ValueError: the objective does not fit the model.
    """
    soft = Pairs.of(len(rows.passages), [], [], []) if rows.soft is None else rows.soft
    return OBJECTIVES[config.objective](Wanted(config, model, rows.known, soft, rotation.positives))


def _infonce(w: Wanted) -> nn.Module:
    return InfoNCE(w.model, scale=w.scale, known=w.known, score_margin=w.config.score_margin)


def _cached(w: Wanted) -> nn.Module:
    if has_static_embedding_input(w.model):
        raise ValueError(
            "objective cached_infonce cuts batches in pieces, and a model of static vectors reads them as one; set "
            "objective: infonce, which needs little memory there"
        )
    return CachedInfoNCE(
        w.model,
        scale=w.scale,
        known=w.known,
        score_margin=w.config.score_margin,
        mini_batch_size=w.config.mini_batch_size,
    )


def _all_positives(w: Wanted) -> nn.Module:
    return AllPositives(
        w.model, scale=w.scale, known=w.known, positives=w.positives, score_margin=w.config.score_margin
    )


def _gist(w: Wanted) -> nn.Module:
    guide = SentenceTransformer(w.config.model, device=w.config.device, local_files_only=True)
    if isinstance(w.model.max_seq_length, int):
        guide.max_seq_length = w.model.max_seq_length
    return Guided(
        w.model,
        scale=w.scale,
        known=w.known,
        guide=guide,
        guide_margin=w.config.guide_margin,
        score_margin=w.config.score_margin,
    )


def _margin_mse(w: Wanted) -> nn.Module:
    return MarginMSE(w.model, scale=w.scale, soft=w.soft)


def _kl(w: Wanted) -> nn.Module:
    return SoftLabelKL(w.model, scale=w.scale, soft=w.soft, soft_temperature=w.config.soft_temperature)


OBJECTIVES: Mapping[Objective, Callable[[Wanted], nn.Module]] = {
    "infonce": _infonce,
    "cached_infonce": _cached,
    "all_positives": _all_positives,
    "gist": _gist,
    "margin_mse": _margin_mse,
    "kl": _kl,
}
