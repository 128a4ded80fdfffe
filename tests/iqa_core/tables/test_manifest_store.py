"""Manifests on a real S3 API: few requests, names of all kinds, failures told from damage."""

from __future__ import annotations

import json

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.tables.manifest import open_manifest
from iqa_core.tables.manifest_reading import DamagedManifestError, read_slice
from iqa_core.tables.rows import RowSet
from iqa_core.tables.slices import plan_slices
from tests.s3 import BUCKET, FAULTS, s3_server

pytestmark = pytest.mark.slow
ROWS = 1500


@pytest.fixture
def store(monkeypatch):
    s3fs = pytest.importorskip("s3fs")
    with s3_server() as (proxy, environment, options):
        monkeypatch.setitem(fsspec.config.conf, "s3", json.loads(environment["FSSPEC_S3"]))
        fs = s3fs.S3FileSystem(**options)
        fs.mkdir(BUCKET)
        yield proxy, fs
        s3fs.S3FileSystem.clear_instance_cache()


def uris(manifest, units=None):
    units = units or plan_slices(manifest, RowSet())
    tables = [t for u in units for t in read_slice(manifest.folder, u, (), pa.string(), 64)]
    return pa.concat_tables(tables).column("uri").to_pylist()


def test_many_row_groups_cost_few_requests(store, tmp_path):
    proxy, fs = store
    names = [f"{n}.jpg" for n in range(ROWS)]
    columns = {"uri": names} | {c: [0.5] * ROWS for c in "abcd"}
    pq.write_table(pa.table(columns), tmp_path / "x", row_group_size=1)
    fs.put_file(str(tmp_path / "x"), f"{BUCKET}/m/part-0000")
    manifest = open_manifest(f"s3://{BUCKET}/m/part-0000")
    units = list(plan_slices(manifest, RowSet()))
    proxy.seen.clear()
    assert uris(manifest, units) == names
    assert proxy.seen.total() < 12


def test_requests_that_fail_cost_no_row(store, tmp_path):
    proxy, fs = store
    names = [f"{n}.jpg" for n in range(ROWS)]
    for place in range(10):
        part = pa.table({"uri": names[place * 150 : place * 150 + 150]})
        pq.write_table(part, tmp_path / "x", row_group_size=100)
        fs.put_file(str(tmp_path / "x"), f"{BUCKET}/m/{place}.parquet")
    manifest = open_manifest(f"s3://{BUCKET}/m")
    proxy.stall = 4.0
    proxy.share = 0.4
    proxy.seen.clear()
    assert uris(manifest) == names
    assert sum(proxy.seen[fault] for fault in FAULTS) > 3


def test_damage_and_replacement_are_told_apart(store, tmp_path):
    _, fs = store
    pq.write_table(pa.table({"uri": [f"{n:030}" for n in range(90)]}), tmp_path / "x",
                   row_group_size=30, write_page_checksum=True)  # fmt: skip
    chunk = pq.read_metadata(tmp_path / "x").row_group(1).column(0)
    sound = (tmp_path / "x").read_bytes()
    data = bytearray(sound)
    data[chunk.dictionary_page_offset + chunk.total_compressed_size - 5] ^= 0x11
    fs.pipe_file(f"{BUCKET}/m/a.parquet", bytes(data))
    manifest = open_manifest(f"s3://{BUCKET}/m")
    units = list(plan_slices(manifest, RowSet()))
    with pytest.raises(DamagedManifestError, match=r"a\.parquet, row group 1 \(rows 30 to 59\)"):
        uris(manifest, units)
    fs.pipe_file(f"{BUCKET}/m/a.parquet", sound)
    with pytest.raises(
        InputError, match=r"s3://bucket/m/a\.parquet was replaced while it was read"
    ):
        uris(manifest, units)
    fs.rm_file(f"{BUCKET}/m/a.parquet")
    with pytest.raises(InputError, match=r"s3://bucket/m/a\.parquet was removed while it was read"):
        uris(manifest, units)
