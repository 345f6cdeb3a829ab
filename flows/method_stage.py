"""What an entry of the stage table is."""

from dataclasses import dataclass

from infra.stages.stage import Stage


@dataclass(frozen=True)
class MethodStage(Stage):
    """A stage of the method, with what other modules of the flows need to know about it.

    section: the section of the settings that configures it; empty: the section has the stage's name.
    decides_labels: its settings decide which pairs are judged, and how. Nights are compared only if they are equal.
        `escalate` and `judge` do not set it: the settings of the tiers are compared as a whole.
    afterwards: `retrain`, `prune` and `validate` run it on a finished curation. No record keeps their parameters, so
        the garbage collector keeps such parts as long as what they read.
    """

    section: str = ""
    decides_labels: bool = False
    afterwards: bool = False

    @property
    def settings(self) -> str:
        """The section of the settings that configures it."""
        return self.section or self.name
