"""From readings to one verdict: the state of one answer, and the majority of several."""

from collections import Counter
from dataclasses import dataclass, field

from tasks.judging.calls import Call, Reading
from tasks.judging.config import JudgeConfig, Preference

# The four preferences between 0 and 1: an order, not a probability; off the ends, where log-odds are infinite. What
# counts as relevant stands above the middle, what does not below.
_IF_RELEVANT: dict[Preference, float] = {"none": 0.05, "worse": 0.55, "equal": 0.65, "better": 0.95}
_IF_NOT: dict[Preference, float] = {"none": 0.05, "worse": 0.35, "equal": 0.45, "better": 0.48}


def score_of(config: JudgeConfig, reading: Reading) -> float | None:
    """Give a reading's score: its own, or its preference's place."""
    if reading.failure or reading.preference is None:
        return reading.score
    relevant = reading.preference in config.relevant_preferences
    return (_IF_RELEVANT if relevant else _IF_NOT)[reading.preference]


def state_of(score: float | None, relevant_from: float, not_relevant_below: float) -> str:
    """Name the verdict state of a score; no score is `unparsed`."""
    if score is None:
        return "unparsed"
    if score >= relevant_from:
        return "relevant"
    return "not_relevant" if score < not_relevant_below else "unsure"


def state_of_reading(config: JudgeConfig, reading: Reading) -> str:
    """Name the state of one reading; `worse` that does not count as relevant is `unsure`, as ARHN has it."""
    if reading.failure:
        return "unparsed"
    if reading.preference is None:
        return state_of(reading.score, config.relevant_from, config.not_relevant_below)
    if reading.preference in config.relevant_preferences:
        return "relevant"
    return "not_relevant" if reading.preference == "none" else "unsure"


@dataclass
class Tally:
    """The votes on one passage: at most `of`, fewer where the majority is settled before."""

    of: int
    states: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def add(self, config: JudgeConfig, reading: Reading, call: Call) -> None:
        """Count one vote."""
        score = score_of(config, reading)
        if score is not None:
            self.scores.append(score)
        self.states.append(state_of_reading(config, reading))
        self.readings.append(reading)
        self.calls.append(call)

    @property
    def is_settled(self) -> bool:
        """Tell whether one parsed state has more than half of all the votes there may be."""
        return any(count > self.of // 2 for count in self._counts().values())

    @property
    def state(self) -> str:
        """The majority of the parsed votes; `unsure` without one, `unparsed` where none could be read."""
        counts = self._counts()
        if not counts:
            return "unparsed"
        state, most = max(counts.items(), key=lambda item: (item[1], item[0]))
        return state if 2 * most > sum(counts.values()) else "unsure"

    @property
    def score(self) -> float | None:
        """The mean of the votes' scores."""
        return self._mean(self.scores)

    @property
    def grade(self) -> float | None:
        """The mean of the votes' grades."""
        return self._mean([r.grade for r in self.readings if not r.failure and r.grade is not None])

    @property
    def preference(self) -> str | None:
        """The most frequent preference, among equals the one nearer to `none`."""
        counts = Counter(r.preference for r in self.readings if not r.failure and r.preference is not None)
        if not counts:
            return None
        return min(counts, key=lambda preference: (-counts[preference], _IF_NOT[preference]))

    @property
    def last(self) -> Call:
        """The last call that was made about the passage."""
        return self.calls[-1]

    def _counts(self) -> Counter[str]:
        return Counter(state for state in self.states if state != "unparsed")

    @staticmethod
    def _mean(values: list[float]) -> float | None:
        return sum(values) / len(values) if values else None
