"""Define the settings of adapters: small matrices that are trained beside the frozen weights of a large model."""

from pydantic import BaseModel, ConfigDict, Field

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LoraConfig(BaseModel):
    """LoRA (arXiv 2106.09685): the layers that are trained, and how much they can change.

    The defaults are those of Tevatron, the paper's trainer.

    rank: of the matrices. alpha: the change of a layer is multiplied by alpha / rank. dropout: of the adapter's input.
    target_modules: the ends of the names of the linear layers that get an adapter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rank: int = Field(16, ge=1)
    alpha: float = Field(64.0, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    target_modules: tuple[str, ...] = Field(LINEAR, min_length=1)
