"""Retrieval tasks of mteb by name, and the sets of BEIR by theirs: where a hub has them, and what is scored.

The repositories, revisions and splits are those of mteb's own task table (mteb 2, August 2026). In each, the corpus,
the queries and the judgements lie side by side, so one address names all of a set. BEIR's own repositories keep the
judgements elsewhere.
"""

import difflib
from collections.abc import Iterable
from typing import Any, NamedTuple

MAIN = "nDCG@10"  # the main score of all of these tasks
_SHOWN = 5  # near names that an error tells


class Task(NamedTuple):
    """One task of mteb. source, revision: of the data set on the hub. language: as mteb's tools name it."""

    name: str
    source: str
    revision: str
    split: str = "test"
    language: str = "eng-Latn"

    @property
    def address(self) -> str:
        """The address of the data set, at the revision that the task names."""
        return f"hf://{self.source}@{self.revision}"


_TASKS = (
    Task("ArguAna", "mteb/arguana", "c22ab2a51041ffd869aaddef7af8d8215647e41a"),
    Task("ClimateFEVER", "mteb/climate-fever", "47f2ac6acb640fc46020b02a5b59fdda04d39380"),
    Task("DBPedia", "mteb/dbpedia", "c0f706b76e590d620bd6618b3ca8efdd34e2d659"),
    Task("FEVER", "mteb/fever", "bea83ef9e8fb933d90a2f1d5515737465d613e12"),
    Task("FiQA2018", "mteb/fiqa", "27a168819829fe9bcd655c2df245fb19452e8e06"),
    Task("HotpotQA", "mteb/hotpotqa", "ab518f4d6fcca38d87c25209f94beba119d02014"),
    Task("MSMARCO", "mteb/msmarco", "c5a29a104738b98a9e76336939199e264163d4a0", "dev"),
    Task("NFCorpus", "mteb/nfcorpus", "ec0fa4fe99da2ff19ca1214b7966684033a58814"),
    Task("NQ", "mteb/nq", "b774495ed302d8c44a3a7ea25c90dbce03968f31"),
    Task("QuoraRetrieval", "mteb/quora", "e4e08e0b7dbe3c8700f0daef558ff32256715259"),
    Task("SCIDOCS", "mteb/scidocs", "f8c2fcf00f625baaa80f62ec5bd9e1fff3b8ae88"),
    Task("SciFact", "mteb/scifact", "d56462d0e63a25450459c4f213e49ffdb866f7f9"),
    Task("TRECCOVID", "mteb/trec-covid", "bb9466bac8153a0349341eb1b22e06409e78ef4e"),
    Task("Touche2020", "mteb/touche2020", "a34f9a33db75fa0cbb21bb5cfc3dae8dc8bec93f"),
    Task("CQADupstackAndroidRetrieval", "mteb/CQADupstackAndroidRetrieval", "9be4c0e46342e8e3aff577a89b9a1ec9bc6b4af3"),
    Task("CQADupstackEnglishRetrieval", "mteb/cqadupstack-english", "ad9991cb51e31e31e430383c75ffb2885547b5f0"),
    Task("CQADupstackGamingRetrieval", "mteb/cqadupstack-gaming", "4885aa143210c98657558c04aaf3dc47cfb54340"),
    Task("CQADupstackGisRetrieval", "mteb/cqadupstack-gis", "5003b3064772da1887988e05400cf3806fe491f2"),
    Task("CQADupstackMathematicaRetrieval", "mteb/cqadupstack-mathematica", "90fceea13679c63fe563ded68f3b6f06e50061de"),
    Task("CQADupstackPhysicsRetrieval", "mteb/cqadupstack-physics", "79531abbd1fb92d06c6d6315a0cbbbf5bb247ea4"),
    Task("CQADupstackProgrammersRetrieval", "mteb/cqadupstack-programmers", "6184bc1440d2dbc7612be22b50686b8826d22b32"),
    Task("CQADupstackStatsRetrieval", "mteb/cqadupstack-stats", "65ac3a16b8e91f9cee4c9828cc7c335575432a2a"),
    Task("CQADupstackTexRetrieval", "mteb/cqadupstack-tex", "46989137a86843e03a6195de44b09deda022eec7"),
    Task("CQADupstackUnixRetrieval", "mteb/cqadupstack-unix", "6c6430d3a6d36f8d2a829195bc5dc94d7e063e53"),
    Task("CQADupstackWebmastersRetrieval", "mteb/cqadupstack-webmasters", "160c094312a0e1facb97e55eeddb698c0abe3571"),
    Task("CQADupstackWordpressRetrieval", "mteb/cqadupstack-wordpress", "4ffe81d471b1924886b33c7567bfb200e9eec5c4"),
    Task(
        "ClimateFEVERHardNegatives",
        "mteb/ClimateFEVER_test_top_250_only_w_correct-v2",
        "3a309e201f3c2c4b13bd4a367a8f37eee2ec1d21",
    ),
    Task(
        "DBPediaHardNegatives",
        "mteb/DBPedia_test_top_250_only_w_correct-v2",
        "943ec7fdfef3728b2ad1966c5b6479ff9ffd26c9",
    ),
    Task("FEVERHardNegatives", "mteb/FEVER_test_top_250_only_w_correct-v2", "080c9ed6267b65029207906e815d44a9240bafca"),
    Task(
        "HotpotQAHardNegatives",
        "mteb/HotpotQA_test_top_250_only_w_correct-v2",
        "617612fa63afcb60e3b134bed8b7216a99707c37",
    ),
    Task("NQHardNegatives", "mteb/NQ_test_top_250_only_w_correct-v2", "d700fe4f167a5db8e6c9b03e8c26e7eaf66faf97"),
    Task(
        "QuoraRetrievalHardNegatives",
        "mteb/QuoraRetrieval_test_top_250_only_w_correct-v2",
        "907a33577e9506221d3ba20f5a851b7c3f8dc6d3",
    ),
    Task("Touche2020Retrieval.v3", "mteb/webis-touche2020-v3", "431886eaecc48f067a3975b70d0949ea2862463c"),
    Task("NanoArguAnaRetrieval", "zeta-alpha-ai/NanoArguAna", "8f4a982d470a32c45817738b9d29042ca55d75ad", "train"),
    Task(
        "NanoClimateFeverRetrieval",
        "zeta-alpha-ai/NanoClimateFEVER",
        "96741bfa30b9f56db8c9eb7d08e775ed6474f206",
        "train",
    ),
    Task("NanoDBPediaRetrieval", "zeta-alpha-ai/NanoDBPedia", "438f1c25129f05db6238699b5afdc9c6b58d2096", "train"),
    Task("NanoFEVERRetrieval", "zeta-alpha-ai/NanoFEVER", "a8bfdf1bf15181167a7e22e69cf8754bdea9b4c8", "train"),
    Task("NanoFiQA2018Retrieval", "zeta-alpha-ai/NanoFiQA2018", "4163ba032953d5044a7a6244261413f609c14342", "train"),
    Task("NanoHotpotQARetrieval", "zeta-alpha-ai/NanoHotpotQA", "d79c0cdda980aba54842756770928035e1b61a51", "train"),
    Task("NanoMSMARCORetrieval", "zeta-alpha-ai/NanoMSMARCO", "7b8ff22f2771dc65ac5b439f222eb19a1f56abda", "train"),
    Task("NanoNFCorpusRetrieval", "zeta-alpha-ai/NanoNFCorpus", "dd542a7efb9ad2136b9e00768b60fca9038f8156", "train"),
    Task("NanoNQRetrieval", "zeta-alpha-ai/NanoNQ", "77540146379abf95df8326a3c5bb9eb21c7146c3", "train"),
    Task("NanoQuoraRetrieval", "zeta-alpha-ai/NanoQuoraRetrieval", "2ab2d73e6c862026282808b913a34f4136928545", "train"),
    Task("NanoSCIDOCSRetrieval", "zeta-alpha-ai/NanoSCIDOCS", "484eb90549fc3f0b9c42b3551e80ceb999515537", "train"),
    Task("NanoSciFactRetrieval", "zeta-alpha-ai/NanoSciFact", "309f1d1ae3ae2e092444a8a0c25bed59b82318bc", "train"),
    Task(
        "NanoTouche2020Retrieval", "zeta-alpha-ai/NanoTouche2020", "0d2f26ed8c5ad309f95c7f9499c70a40e140fccd", "train"
    ),
    Task("AlloprofRetrieval", "mteb/AlloprofRetrieval", "96a52a1744e2d1981a66d93ff3b5a595f9a150d5", "test", "fra-Latn"),
    Task("CmedqaRetrieval", "mteb/CmedqaRetrieval", "c476f85bf03d6642ec66bf54b9a551c88108bbb4", "dev", "cmn-Hans"),
    Task("CovidRetrieval", "mteb/CovidRetrieval", "9c6dc4b276bb47c3ff725bbc5ffcafd56dded38b", "dev", "cmn-Hans"),
    Task("DuRetrieval", "mteb/DuRetrieval", "313c81b51311893c8fd09ca432f96b841ed0ebb3", "dev", "cmn-Hans"),
    Task("GerDaLIRSmall", "mteb/GerDaLIRSmall", "48327de6ee192e9610f3069789719788957c7abd", "test", "deu-Latn"),
    Task(
        "JaQuADRetrieval", "mteb/JaQuADRetrieval", "5713cd1b76a22b79c3595827c717c72b6cab8852", "validation", "jpn-Jpan"
    ),
)
TASKS = {task.name: task for task in _TASKS}
# BEIR's sets by the names of its folders. None: no hub may hand it out, and whoever has a licence gives the folder.
BEIR: dict[str, str | None] = {
    "trec-covid": "TRECCOVID",
    "nfcorpus": "NFCorpus",
    "nq": "NQ",
    "hotpotqa": "HotpotQA",
    "fiqa": "FiQA2018",
    "arguana": "ArguAna",
    "webis-touche2020": "Touche2020",
    "dbpedia-entity": "DBPedia",
    "scidocs": "SCIDOCS",
    "fever": "FEVER",
    "climate-fever": "ClimateFEVER",
    "scifact": "SciFact",
    "trec-news": None,
    "robust04": None,
    "signal1m": None,
    "bioasq": None,
}
_BESIDE = {"msmarco": "MSMARCO", "quora": "QuoraRetrieval"}  # in BEIR, and not among the paper's sixteen
_LICENSED = tuple(name for name, task in BEIR.items() if task is None)
# The paper's groups (section 4): sixteen sets, of which no training set holds the seven.
GROUPS = {
    "all": tuple(BEIR),
    "out_of_domain": ("trec-covid", "nfcorpus", "webis-touche2020", "trec-news", "robust04", "signal1m", "bioasq"),
    "public": tuple(name for name, task in BEIR.items() if task is not None),
}
_KEYS = {"beir", "mteb"}


def expand(item: Any) -> list[Any]:  # noqa: ANN401 - whatever the file holds
    """Return the collections that an entry of `evaluate.collections` names, as settings of one collection each.

    An entry that names none by `beir` or `mteb` is returned as it is.

    Raises:
        ValueError: a name is not known (the message has the near ones), or a set needs a folder and there is none.

    >>> expand({"mteb": "SciFact", "path": "sets/scifact"})[0]["path"], expand("sets/mine")
    ('sets/scifact', ['sets/mine'])
    """
    if not isinstance(item, dict) or not _KEYS & item.keys():
        return [item]
    if _KEYS <= item.keys():
        raise ValueError("beir or mteb expected, got both; give each an entry of its own")
    kind = next(iter(_KEYS & item.keys()))
    rest = {key: value for key, value in item.items() if key != kind}
    named = item[kind] if isinstance(item[kind], list | tuple) else [item[kind]]
    found = list[str]()
    for name in named:
        found += GROUPS[name] if kind == "beir" and name in GROUPS else [_known(kind, name)]
    if len(found) > 1 and "name" in rest:
        raise ValueError(f"{kind}: a name for each collection expected, got one for {len(found)}; remove `name`")
    if "path" not in rest:
        _refuse_licensed(kind, found)
    return [_collection(kind, name, rest, several=len(found) > 1) for name in dict.fromkeys(found)]


def _collection(kind: str, name: str, rest: dict[str, Any], *, several: bool) -> dict[str, Any]:
    """Return the settings of one set. Of several, each lies in a folder of its own name below `path`."""
    task = TASKS.get((BEIR | _BESIDE).get(name) or "" if kind == "beir" else name)
    known: dict[str, Any] = {"name": name, "languages": ["eng-Latn"], "main": MAIN}
    if task is not None:
        address = {"path": task.address, "revision": task.revision} if "path" not in rest else {}
        known |= {"split": task.split, "languages": [task.language], "name": task.name, **address}
    placed = {"path": f"{str(rest['path']).rstrip('/')}/{name}"} if several and "path" in rest else {}
    return known | rest | placed


def _known(kind: str, name: object) -> str:
    """Return the name of a set as the tables have it, whatever its case.

    >>> _known("beir", "NFCorpus"), _known("mteb", "scifact")
    ('nfcorpus', 'SciFact')
    """
    names = [*BEIR, *_BESIDE] if kind == "beir" else list(TASKS)
    lowered = {known.lower(): known for known in names}
    if isinstance(name, str) and name.lower() in lowered:
        return lowered[name.lower()]
    others = list(GROUPS) if kind == "beir" else []
    near = difflib.get_close_matches(str(name).lower(), [*lowered, *others], n=_SHOWN, cutoff=0.5)
    told = (
        f"near it: {_listed(lowered.get(one, one) for one in near)}" if near else f"known: {_listed([*others, *names])}"
    )
    raise ValueError(
        f"{kind}: no set {str(name)!r} is known here; {told}. Any other set is read from its folder or address: "
        "{path: …}"
    )


def _refuse_licensed(kind: str, names: Iterable[str]) -> None:
    wanting = [name for name in names if kind == "beir" and name in _LICENSED]
    if wanting:
        raise ValueError(
            f"beir: {_listed(wanting)}: no hub hands these out, because of their licences. Give the folder that you "
            "have (`path`; for several sets the folder above, with one folder for each, named as here), or name "
            "`beir: public` for the others"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
