"""Finding a text in whatever a file of a store may be."""

import bz2
import gzip
import html
import io
import json
import lzma
import random
from collections.abc import Callable
from functools import partial

import polars as pl
import pyarrow as pa
import pytest

from infra import text_search
from infra.text_search import Seeker, Target

TEXT = 'The "red" fox <of> Málaga/Spain & co\nsleeps in a den.'
HASH = "0123456789abcdef0123456789abcdef"
TARGET = Target(frozenset({HASH}), frozenset({TEXT}))


def parquet(**columns: object) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(columns).write_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "spelled",
    [
        TEXT,
        json.dumps({"text": TEXT}),
        json.dumps({"text": TEXT}, ensure_ascii=False),
        html.escape(TEXT),
        html.escape(TEXT).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
        'id,passage\n1,"' + TEXT.replace('"', '""') + '"\n',
        json.dumps({"passages": [[{"text": f"Before. {TEXT} After."}]]}, indent=1),
        json.dumps({"text": TEXT}).replace("/", "\\/"),
        json.dumps({"text": TEXT}).replace("<", "\\u003c").replace("\\u00e1", "\\u00E1"),
        '{"id": 1}\n' + json.dumps({"text": TEXT.replace(" fox", "\x0bfox")}) + "\n",
        f"the hash {HASH} of it",
    ],
)
def test_a_text_is_found_however_a_file_spells_it(spelled: str) -> None:
    seeker = Seeker(TARGET)
    assert seeker.in_bytes(spelled.encode())
    assert seeker.in_bytes(b"\0weights" + TEXT.encode())
    assert seeker.in_bytes(gzip.compress(spelled.encode()))
    assert not seeker.in_bytes(spelled.encode().replace(b"Spain", b"France").replace(HASH.encode(), b"gone"))
    assert not seeker.in_bytes(gzip.compress(b"another text"))


def test_tables_are_searched_in_every_column_of_strings_and_lists_of_strings() -> None:
    seeker = Seeker(TARGET)
    assert seeker.in_bytes(parquet(n=[1, 2], text=["other", f"It is said: {TEXT}"]))
    assert seeker.in_bytes(parquet(texts=[["a"], [], None, ["b", TEXT]]))
    assert seeker.in_bytes(parquet(deep=[[["a", HASH]]]))
    assert seeker.in_bytes(parquet(detail=[f"text {HASH}", None]))
    assert seeker.in_bytes(parquet(passages=[[], [{"docid": "1", "text": "a"}, {"docid": "2", "text": TEXT}]]))
    assert seeker.in_bytes(parquet(row={"meta": [{"said": [TEXT]}]}))
    assert seeker.in_bytes(parquet(text=pl.Series(["a", TEXT], dtype=pl.Categorical), n=[1, 2]))
    assert seeker.in_bytes(parquet(text=[b"a", TEXT.encode()]))
    assert not seeker.in_bytes(parquet(passages=[[], [{"docid": "1", "text": "a"}]], raw=[b"\xff", None]))
    assert not seeker.in_bytes(parquet(n=[1], text=["other"], texts=[["a"]], nothing=[None]))
    assert not seeker.in_bytes(parquet(text=pl.Series([], dtype=pl.String)))
    assert not seeker.in_bytes(b"PAR1 but no table")


def test_a_short_text_is_sought_as_a_whole_value_only() -> None:
    seeker = Seeker(Target(frozenset({HASH}), frozenset({"otter", 'a "b"'})))
    for holding in (b'{"text": "otter"}', b"otter", b"1,otter,2", b"q1\totter\r\n", b"<td>otter</td>"):
        assert seeker.in_bytes(holding)
    assert seeker.in_bytes(b'{"text": "a \\"b\\""}')
    assert seeker.in_bytes(parquet(text=["otter"]))
    assert not seeker.in_bytes(b'{"text": "the otter lives"}')
    assert not seeker.in_bytes(parquet(text=["the otter lives", "otters"]))


def test_an_empty_target_is_refused() -> None:
    for target in ((frozenset(), frozenset()), (frozenset(), frozenset({""})), (frozenset({""}), frozenset())):
        with pytest.raises(ValueError, match="at least one hash or text"):
            Target(*target)


def test_a_text_of_24_characters_is_sought_within_others_and_a_shorter_one_is_not() -> None:
    short, long = "a" * 23, "b" * 24
    seeker = Seeker(Target(frozenset(), frozenset({short, long})))
    assert seeker.in_bytes(f"x{long}x".encode())
    assert not seeker.in_bytes(f"x{short}x".encode())
    assert seeker.in_bytes(parquet(text=[f"x{long}x"]))
    assert not seeker.in_bytes(parquet(text=[f"x{short}x"]))
    assert seeker.in_bytes(parquet(text=["other", short]))
    assert not Seeker(Target(frozenset(), frozenset({short}))).in_bytes(parquet(text=["other"]))


def test_a_short_text_that_is_escaped_in_json_is_sought_as_a_whole_value() -> None:
    seeker = Seeker(Target(frozenset(), frozenset({"a/b é"})))
    assert seeker.in_bytes(b'{"text": " a\\/b \\u00e9 "}')
    assert not seeker.in_bytes(b'{"text": "see a\\/b \\u00e9"}')
    assert not seeker.in_bytes(b'\0{"text": "a\\/b \\u00e9"}')  # no text file


def test_an_excerpt_keeps_the_first_200_characters_of_each_text_and_all_hashes() -> None:
    excerpt = Target(frozenset({HASH}), frozenset({"a" * 200 + "b", "c" * 199})).excerpt()
    assert excerpt == Target(frozenset({HASH}), frozenset({"a" * 200, "c" * 199}))


def test_a_gzip_file_that_is_cut_is_searched_as_it_stands() -> None:
    whole = gzip.compress(TEXT.encode())
    assert not Seeker(TARGET).in_bytes(whole[:-12])
    assert Seeker(TARGET).in_bytes(whole[:-12] + HASH.encode())


@pytest.mark.parametrize("ascii_only", [True, False])
def test_an_escaped_text_is_found_in_a_file_that_cannot_be_parsed(ascii_only: bool) -> None:
    spelled = json.dumps(TEXT, ensure_ascii=ascii_only)[1:-1]
    assert Seeker(TARGET).in_bytes(f'cut: {{"text": "before {spelled} after'.encode())
    assert Seeker(TARGET).in_bytes(b"\0" + spelled.encode())
    assert not Seeker(TARGET).in_bytes(b"\0" + spelled[:-1].encode())


@pytest.mark.parametrize("between", [b"\n", b""], ids=["lines", "one line"])
def test_a_gzip_file_is_unpacked_in_pieces_and_searched_over_their_ends(
    monkeypatch: pytest.MonkeyPatch, between: bytes
) -> None:
    monkeypatch.setattr(text_search, "_PIECE", 64)
    seeker, text = Seeker(TARGET), TEXT.encode()
    for before in range(0, 200, 7):
        assert seeker.in_bytes(gzip.compress(b"x" * before + between + text + between + b"y" * 100))
    assert seeker.in_bytes(gzip.compress(b"x\n" * 100 + json.dumps({"a": [TEXT]}).encode() + b"\n" + b"y" * 100))
    assert not seeker.in_bytes(gzip.compress((b"x" * 50 + between + text[:-1]) * 20))
    short = Seeker(Target(frozenset(), frozenset({"otter"})))
    for before in range(100):
        assert not short.in_bytes(gzip.compress(b"x" * before + b"otter lives\n" + b"the otter\n" * 100))
        assert short.in_bytes(gzip.compress(b"x" * before + b"\notter\n" + b"y" * 100))


ZSTD = pa.Codec("zstd")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
@pytest.mark.parametrize(
    "pack",
    [gzip.compress, bz2.compress, lzma.compress, lambda data: ZSTD.compress(data, asbytes=True), lambda data: data],
    ids=["gzip", "bzip2", "xz", "zstd", "plain"],
)
def test_a_text_is_found_in_every_kind_of_packed_source(pack: Callable[[bytes], bytes], encoding: str) -> None:
    def packed(text: str) -> bytes:
        return pack(text.encode(encoding)) + pack(b"" if encoding != "utf-8" else b"the next member\n")

    assert Seeker(TARGET).in_bytes(packed(f"first line\n{TEXT}\n"))
    assert Seeker(TARGET).in_bytes(packed(f"first line\n{json.dumps({'passages': [{'text': TEXT}]})}\n"))
    assert not Seeker(TARGET).in_bytes(packed("first line\nanother\n"))
    assert not Seeker(TARGET).in_bytes(packed(f"first line\n{TEXT}\n")[:20])


@pytest.mark.parametrize(
    "pack", [gzip.compress, bz2.compress, partial(lzma.compress, preset=0)], ids=["gzip", "bzip2", "xz"]
)
def test_a_text_is_found_before_the_place_where_a_packed_file_ends_early(pack: Callable[[bytes], bytes]) -> None:
    noise = random.Random(1).randbytes(1_000_000).hex().encode()  # bzip2 packs blocks of 900 kB
    packed = pack(f"first line\n{TEXT}\n".encode() + noise)
    assert Seeker(TARGET).in_bytes(packed[: len(packed) // 2])
    assert not Seeker(TARGET).in_bytes(pack(b"first line\n" + noise)[: len(packed) // 2])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_a_text_is_found_in_arrow_files(stream: bool, compression: str | None) -> None:
    def arrow(text: str) -> bytes:
        table = pa.table({"query": ["q"], "positive_passages": [[{"docid": "1", "text": text}]]})
        options, made = pa.ipc.IpcWriteOptions(compression=compression), pa.BufferOutputStream()
        with (pa.ipc.new_stream if stream else pa.ipc.new_file)(made, table.schema, options=options) as writer:
            writer.write_table(table)
        return bytes(made.getvalue())

    assert Seeker(TARGET).in_bytes(arrow(TEXT))
    assert not Seeker(TARGET).in_bytes(arrow("another " * 20))
    assert not Seeker(TARGET).in_bytes(arrow("another " * 20)[:60])


def test_a_large_gzip_file_is_never_in_memory_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_search, "_PIECE", 64)
    monkeypatch.setattr(text_search, "_READ", 64)
    pieces = list(Seeker(TARGET)._unpacked(gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(b"0123456789\n" * 1_000)))))
    assert len(pieces) > 150
    assert max(len(piece) for piece in pieces) < 300


@pytest.mark.parametrize("text", [TEXT, "red fox", 'a "red" fox'])
def test_a_column_of_lines_is_searched_as_the_file_that_it_becomes(text: str) -> None:
    seeker = Seeker(Target(frozenset(), frozenset({text})))
    line = json.dumps({"query": "other", "positive_passages": [{"text": text}]}, ensure_ascii=False) + "\n"
    assert seeker.in_bytes(parquet(line=["{}\n", line]))
    assert not seeker.in_bytes(parquet(line=["{}\n", line.replace("fox", "badger")]))
    assert not seeker.in_bytes(parquet(line=[3]))
