"""TIFF: raw camera files, thumbnails in front, strips that are not there, metadata."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from iqa_core.errors import ImageError
from iqa_core.images.decode import decode_image

RNG = np.random.default_rng(0)
CFA, LINEAR_RAW, RGB, GREY = 32803, 34892, 2, 1


@dataclass
class Page:
    """One directory of a file made by hand: grey or RGB pixels of 8 bits in one strip."""

    width: int
    height: int
    photometric: int = RGB
    reduced: int | None = None
    tags: dict = field(default_factory=dict)  # tag -> (type, value)
    parts: tuple = ()  # pages in SubIFDs

    @property
    def channels(self) -> int:
        return 3 if self.photometric == RGB else 1

    def __post_init__(self):
        shape = (self.height, self.width, self.channels)
        self.pixels = RNG.integers(0, 256, shape, dtype=np.uint8)


class Writer:
    def __init__(self, order="<", big=False, head=b""):
        self.order, self.big = order, big
        mark = b"II" if order == "<" else b"MM"
        self.out = bytearray(mark + struct.pack(order + "H", 43 if big else 42))
        self.out += struct.pack(order + "HH", 8, 0) if big else b""
        self.place_of_first = len(self.out)
        self.out += bytes(8 if big else 4) + head

    def directory(self, page: Page) -> tuple[int, int]:
        """Write a page; return where its directory is, and where the offset of the next one is."""
        parts = [self.directory(part)[0] for part in page.parts]
        data = len(self.out)
        self.out += page.pixels.tobytes()
        bits = len(self.out)
        self.out += struct.pack(self.order + "3H", 8, 8, 8)
        places = len(self.out)
        offset = "Q" if self.big else "I"
        self.out += struct.pack(f"{self.order}{len(parts)}{offset}", *parts)
        tags = {
            256: (4, page.width),
            257: (4, page.height),
            258: (3, 8) if page.channels == 1 else (3, 8 if self.big else bits, 3),
            259: (3, 1),
            262: (3, page.photometric),
            273: (4, data),
            277: (3, page.channels),
            278: (4, page.height),
            279: (4, page.pixels.nbytes),
        }
        if page.reduced is not None:
            tags[254] = (4, page.reduced)
        if parts:
            tags[330] = (
                (16 if self.big else 4, places, len(parts)) if len(parts) > 1 else (13, parts[0])
            )
        tags |= page.tags
        at = len(self.out)
        self.out += struct.pack(self.order + ("Q" if self.big else "H"), len(tags))
        for tag, (kind, value, *count) in sorted(tags.items()):
            if self.big and not count:  # numbers of 8 bytes
                kind = {4: 16, 13: 18}.get(kind, kind)
            self.out += struct.pack(self.order + "HH" + offset, tag, kind, *(count or [1]))
            if kind == 3 and (not count or self.big):  # held in the entry itself
                held = struct.pack(
                    f"{self.order}{(count or [1])[0]}H", *([value] * (count or [1])[0])
                )
                self.out += held.ljust(struct.calcsize(offset), b"\0")
            else:
                self.out += struct.pack(self.order + offset, value)
        following = len(self.out)
        self.out += bytes(8 if self.big else 4)
        return at, following

    def file(self, *pages: Page) -> bytes:
        place = self.place_of_first
        for page in pages:
            at, following = self.directory(page)
            struct.pack_into(self.order + ("Q" if self.big else "I"), self.out, place, at)
            place = following
        return bytes(self.out)


def tiff(*pages: Page, **options) -> bytes:
    return Writer(**options).file(*pages)


def failure(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as raised:
        decode_image(data)
    assert "\n" not in raised.value.message
    return raised.value


FORMS = [("<", False), (">", False), ("<", True), (">", True)]


def thumbnail(**options) -> Page:
    return Page(16, 12, **{"reduced": 1, **options})


RAW_FILES = {
    "DNG: sensor data in SubIFDs": lambda form: tiff(
        thumbnail(tags={50706: (1, 1)}, parts=(Page(64, 48, CFA), Page(32, 24))), **form
    ),
    "DNG whose first picture is not said to be reduced": lambda form: tiff(
        thumbnail(reduced=None, tags={50706: (1, 1)}), **form
    ),
    "NEF: previews and sensor data in SubIFDs": lambda form: tiff(
        thumbnail(parts=(Page(64, 48), Page(66, 50, CFA))), **form
    ),
    "ARW: the sensor data alone": lambda form: tiff(
        thumbnail(reduced=1, parts=(Page(66, 50, CFA),)), **form
    ),
    "PEF: the sensor data first": lambda form: tiff(Page(64, 48, CFA), thumbnail(), **form),
    "linear raw": lambda form: tiff(Page(64, 48, LINEAR_RAW), **form),
    "sensor data in a later directory": lambda form: tiff(
        thumbnail(reduced=None), Page(32, 24), Page(64, 48, CFA), **form
    ),
    "a maker's compression": lambda form: tiff(
        thumbnail(parts=(Page(64, 48, GREY, tags={259: (3, 34713)}),)), **form
    ),
}


class TestRaw:
    @pytest.mark.parametrize("form", FORMS, ids=["II", "MM", "II, big", "MM, big"])
    @pytest.mark.parametrize("make", RAW_FILES.values(), ids=RAW_FILES)
    def test_raw_camera_files_are_unsupported(self, make, form):
        error = failure(make({"order": form[0], "big": form[1]}))
        assert error.status == "unsupported"
        assert "raw camera files are not read: develop to JPEG or TIFF first" in error.message

    def test_canons_mark(self):
        data = bytearray(tiff(Page(64, 48), head=bytes(8)))
        first = struct.unpack_from("<I", data, 4)[0]
        at = len(data)
        data += data[first : first + 2 + 12 * 9 + 4]  # CR2 has its first directory at byte 16
        assert decode_image(bytes(data)).width == 64
        data[8:12] = b"CR\2\0"
        assert decode_image(bytes(data)).width == 64  # by chance: pixels may begin there
        data[16:16] = bytes(at - first)  # room
        struct.pack_into("<I", data, 4, 16)
        assert failure(bytes(data)).status == "unsupported"

    def test_phase_ones_mark(self):
        assert failure(tiff(Page(64, 48), head=b"IIIITwaR")).status == "unsupported"
        assert failure(tiff(Page(64, 48), order=">", head=b"MMMMRawT")).status == "unsupported"
        grey = Page(8, 8, GREY)
        grey.pixels[:] = ord("I")  # pixels right behind the header
        assert (decode_image(tiff(grey)).pixels == ord("I")).all()

    @pytest.mark.parametrize("form", FORMS, ids=["II", "MM", "II, big", "MM, big"])
    @pytest.mark.parametrize(
        "pages",
        [
            lambda: (thumbnail(), Page(64, 48)),
            lambda: (thumbnail(), thumbnail(), thumbnail(), Page(64, 48)),
            lambda: (thumbnail(parts=(Page(64, 48),)),),
            lambda: (thumbnail(reduced=None, parts=(Page(64, 48),)),),
            lambda: (thumbnail(reduced=None, tags={255: (3, 2)}), Page(64, 48)),
            lambda: (thumbnail(reduced=3), Page(64, 48, reduced=0)),
        ],
        ids=["next", "fourth", "part", "part, not marked", "old mark", "reduced page"],
    )
    def test_a_thumbnail_in_front_is_not_scored(self, pages, form):
        error = failure(tiff(*pages(), order=form[0], big=form[1]))
        assert error.status == "unsupported"
        for word in ("16 x 12", "64 x 48", "thumbnail", "develop to JPEG or TIFF first"):
            assert word in error.message

    @pytest.mark.parametrize("place", ["SubIFDs", "the second directory"])
    def test_a_camera_sized_image_behind_its_thumbnail(self, place):
        full = Page(1600, 1200, reduced=0)
        if place == "SubIFDs":
            data = tiff(Page(160, 120, reduced=1, parts=(full,)))
            # The offset of the part as a plain number, as most cameras write it.
            as_ifd, as_long = (struct.pack("<HHI", 330, kind, 1) for kind in (13, 4))
            assert data.count(as_ifd) == 1
            data = data.replace(as_ifd, as_long)
        else:
            data = tiff(Page(160, 120, reduced=1), full)
        error = failure(data)
        assert error.status == "unsupported"
        assert "160 x 120" in error.message
        assert "1600 x 1200" in error.message

    @pytest.mark.parametrize(
        "pages",
        [
            lambda: (Page(64, 48), thumbnail()),
            lambda: (Page(64, 48), Page(32, 24, reduced=1), thumbnail()),  # pyramid
            lambda: (Page(64, 48, parts=(Page(32, 24, reduced=1), thumbnail())),),
            lambda: (Page(64, 48, reduced=2), Page(80, 60, reduced=2)),  # pages of a document
            lambda: (Page(64, 48), Page(80, 60)),
            lambda: (Page(64, 48, reduced=1),),  # says so by mistake: there is no other
            lambda: (Page(64, 48, reduced=0, parts=(Page(64, 48, GREY, reduced=4),)),),  # mask
        ],
        ids=["thumbnail", "pyramid", "parts", "document", "pages", "alone", "mask"],
    )
    def test_the_first_of_other_files_is_read(self, pages):
        pages = pages()
        assert np.array_equal(decode_image(tiff(*pages)).pixels, pages[0].pixels)

    def test_directories_in_a_circle(self):
        data = bytearray(tiff(thumbnail(), thumbnail()))
        first = struct.unpack_from("<I", data, 4)[0]
        struct.pack_into("<I", data, len(data) - 4, first)
        assert decode_image(bytes(data)).width == 16


class TestDamage:
    @pytest.mark.parametrize("rows", [1, 10, 47])
    def test_missing_strips(self, rows):
        error = failure(tiff(Page(64, 48, tags={278: (4, rows)})))
        assert error.status == "decode_error"
        assert "strips" in error.message

    def test_missing_planes_and_tiles(self):
        planes = Page(64, 48, tags={284: (3, 2)})
        assert failure(tiff(planes)).status == "decode_error"
        tiles = Page(64, 48, GREY, tags={322: (4, 32), 323: (4, 32), 324: (4, 8)})
        data = tiff(tiles)
        place = data.rindex(struct.pack("<HH", 273, 4))
        no_strips = data[:place] + struct.pack("<HH", 60000, 4) + data[place + 4 :]
        assert "1 of its 4 strips or tiles" in failure(no_strips).message

    def test_strip_that_was_never_written(self):
        assert failure(tiff(Page(64, 48, tags={273: (4, 0)}))).status == "decode_error"

    @pytest.mark.parametrize("big", [False, True])
    def test_every_cut(self, big):
        page = Page(64, 48)
        data = tiff(page, big=big)
        assert np.array_equal(decode_image(data).pixels, page.pixels)
        for missing in (20, 60, 120, 1000, len(data) - 30):
            assert failure(data[:-missing]).status == "decode_error", missing
        beyond = tiff(Page(64, 48, tags={273: (4, 10**7)}), big=big)
        assert failure(beyond).status == "decode_error"

    def test_checksum_of_deflated_strips(self):
        grey = RNG.integers(0, 9, (48, 64), dtype=np.uint8)
        packed = zlib.compress(grey.tobytes())
        for data, status in ((packed, "ok"), (packed[:-1] + b"!", "decode_error")):
            page = Page(64, 48, GREY, tags={259: (3, 8), 279: (4, len(packed))})
            page.pixels = np.frombuffer(data, np.uint8)
            if status == "ok":
                assert np.array_equal(decode_image(tiff(page)).pixels[..., 0], grey)
            else:
                assert failure(tiff(page)).status == status

    def test_last_offset_left_out(self):
        page = Page(64, 48)
        assert np.array_equal(decode_image(tiff(page)[:-4]).pixels, page.pixels)


METADATA = {
    "description beyond the end": {270: (2, 10**8, 5000)},
    "description of 2 GB": {270: (2, 8, 2**31 - 1)},
    "maker of an unknown type": {271: (99, 8, 7)},
    "software as rationals": {305: (5, 8, 900)},
    "XMP as a number": {700: (4, 8)},
    "XMP beyond the end": {700: (1, 10**8, 5000)},
    "newspaper data": {33723: (4, 8, 200)},
    "Photoshop's": {34377: (7, 8, 500)},
    "profile beyond the end": {34675: (7, 10**8, 5000)},
    "profile as a number": {34675: (3, 8)},
    "EXIF beyond the end": {34665: (4, 10**8)},
    "EXIF in the pixels": {34665: (4, 9)},
    "EXIF that is the directory's own text": {34665: (2, 8, 40)},
    "place in the pixels": {34853: (4, 9)},
    "resolution of text": {282: (2, 8, 4), 283: (2, 8, 4), 296: (2, 8, 4)},
    "layers": {37724: (7, 8, 300)},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("tags", METADATA.values(), ids=METADATA)
@pytest.mark.parametrize("form", FORMS[:3], ids=["II", "MM", "II, big"])
def test_metadata_never_cost_a_picture(tags, form):
    page = Page(64, 48, tags=dict(tags))
    assert np.array_equal(decode_image(tiff(page, order=form[0], big=form[1])).pixels, page.pixels)


def test_big_endian_bigtiff_is_unsupported():
    error = failure(tiff(Page(64, 48), order=">", big=True))
    assert (error.status, "BigTIFF" in error.message) == ("unsupported", True)


def test_large_profile_and_xmp_of_a_compressed_file():
    image = Image.fromarray(RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    image.save(
        buffer,
        "TIFF",
        compression="tiff_lzw",
        icc_profile=bytes(3_000_000),
        tiffinfo={700: b"<x/>" * 500_000, 270: "text " * 400_000},
    )
    assert np.array_equal(decode_image(buffer.getvalue()).pixels, np.asarray(image))


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_orientation_from_xmp_where_the_directory_has_none(compression):
    image = Image.fromarray(RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    xmp = b'<x tiff:Orientation="6"/>'
    for tags, turns in (({700: xmp}, -1), ({700: xmp, 274: 1}, 0), ({274: 8}, 1)):
        buffer = io.BytesIO()
        image.save(buffer, "TIFF", compression=compression, tiffinfo=tags)
        expected = np.rot90(np.asarray(image), turns)
        assert np.array_equal(decode_image(buffer.getvalue()).pixels, expected)
