"""The stages around the dense search, of other retrievers, of their union, and of rescoring, for the stage table."""

from flows.method_stage import MethodStage
from infra.stages.stage import Resources
from tasks import schemas as s
from tasks.mining import fuse
from tasks.mining.bm25 import index
from tasks.mining.hashing import HASHES
from tasks.mining.rescored import RESCORED

_WORDS = ("bm25s", "PyStemmer", "numpy")

HASH_PASSAGES = MethodStage(
    "hash_passages",
    "tasks.mining.hashing:hash_corpus",
    1,
    "map",
    each=("passages",),
    outputs={"hashes": HASHES},
    section="search",
)
SEARCH_WITH = MethodStage(
    "search_with",
    "tasks.mining.dense.further:search_with",
    2,
    "grid",
    each=("queries", "positives", "query_embeddings"),  # each a group of parts, as of the dense search
    across=("passages", "hashes", "passage_embeddings"),
    outputs={"hits": s.HITS},
    scatters=("hits",),
    numbered=("queries",),
    streams=("passages", "hashes", "passage_embeddings"),
    libraries=("faiss", "numpy"),
    resources=Resources(num_cpus=2.0, deadline=7200.0),
    section="search",
    decides_labels=True,
)
INDEX_TERMS = MethodStage(
    "index_terms",
    "tasks.mining.bm25.index:index_terms",
    1,
    "map",
    each=("passages",),
    outputs={"documents": index.DOCUMENTS, "postings": index.POSTINGS, "terms": index.TERMS, "totals": index.TOTALS},
    libraries=_WORDS,
    section="bm25",
    decides_labels=True,
)
COUNT_TERMS = MethodStage(
    "count_terms",
    "tasks.mining.bm25.statistics:count_terms",
    1,
    "gather",
    every=("queries", "terms", "totals"),
    outputs={"frequencies": index.TERMS, "corpus": index.TOTALS},
    libraries=_WORDS,
    section="bm25",
    decides_labels=True,
)
SEARCH_BM25 = MethodStage(
    "search_bm25",
    "tasks.mining.bm25.search:search_bm25",
    1,
    "grid",
    each=("queries", "positives"),
    across=("passages", "documents", "postings"),
    late=("frequencies", "corpus"),  # the key names the index they were added up from
    outputs={"hits": s.HITS},
    libraries=_WORDS,
    section="bm25",
    decides_labels=True,
)
FUSE = MethodStage(
    "fuse",
    "tasks.mining.fuse:fuse",
    1,
    "map",
    each=("hits", "queries", "positives", "given"),
    outputs={"fused": fuse.FUSED, "unscored": fuse.FUSED, "found_by": fuse.FOUND_BY},
    section="mine",
    decides_labels=True,
)
CHOOSE_POOL = MethodStage(
    "choose_pool",
    "tasks.mining.mine:choose_pool",
    1,
    "map",
    each=("hits", "queries", "positives", "given", "irrelevant", "query_embeddings"),
    late_each=("passage_embeddings",),
    outputs={"asked": s.CANDIDATES},
    section="mine",
)
RESCORE = MethodStage(
    "rescore",
    "tasks.rescoring.rescore:rescore",
    1,
    "map",
    each=("asked",),
    late_each=("queries", "passages", "positives"),
    outputs={"rescored": RESCORED, "calls": s.CALLS},
    engine="judge",
    ledger=True,
    resources=Resources(num_cpus=2.0, deadline=7200.0),
)
