"""The captions of `tiny`: axes of quality, and captions in many wordings.

An axis is a question with two ends, such as sharp and blurry. Each axis has a target in `[0, 1]`
for every rendered image (1: the positive end), and wordings for both ends. Captions are composed
from wordings, templates and contents, so most captions are seen only a few times.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iqa_core.prompts.pairs import NAMED_PAIRS
from tools.distortions import DISTORTIONS

__all__ = ["AXES", "HELD_OUT", "Axis", "Caption", "axis_targets", "draw_caption", "perceived"]


KINDS = tuple(DISTORTIONS)
# Phrases that start so say how much there is, and cannot follow "without".
AMOUNTS = ("no ", "few", "little", "hardly", "too ", "many", "much", "enough", "low noise")


@dataclass(frozen=True)
class Axis:
    """One question about an image, and how to say its two ends.

    Attributes:
        name: The axis.
        weights: How much each distortion kind pulls to the negative end, 0 to 1.
        halo: How much general degradation pulls to the negative end as well, 0 to 1. In everyday
            language a bad photo is hardly called sharp, and CLIP, too, ties such words to quality.
        positive: Adjectives of the positive end.
        negative: Adjectives of the negative end.
        having: Noun phrases of the positive end, used after "with".
        lacking: Noun phrases of the negative end, used after "with".
    """

    name: str
    weights: dict[str, float]
    halo: float
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    having: tuple[str, ...]
    lacking: tuple[str, ...]

    def adjectives(self, good: bool) -> tuple[str, ...]:
        """Adjectives of one end."""
        return self.positive if good else self.negative

    def phrases(self, good: bool) -> tuple[str, ...]:
        """Noun phrases of one end, used after "with"."""
        return self.having if good else self.lacking

    def absent(self, good: bool) -> tuple[str, ...]:
        """Noun phrases that stand for this end after "without": the other end's, and "no ..."."""
        named = tuple(x for x in self.phrases(not good) if not x.startswith(AMOUNTS))
        denied = tuple(x[3:] for x in self.phrases(good) if x.startswith("no "))
        return named + denied * 3


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


AXES: tuple[Axis, ...] = (
    Axis(
        "quality",
        {},
        1.0,
        _words(
            "good, great, excellent, perfect, beautiful, high quality, high-quality, top quality, "
            "best quality, fine, nice, professional, superb, wonderful, lovely, pleasing, amazing, "
            "flawless, pristine, stunning, outstanding, clean and clear, impressive, decent, "
            "good-looking, well made, undistorted, premium, gorgeous, attractive, fantastic, "
            "of high quality, of good quality, of excellent quality"
        ),
        _words(
            "bad, poor, terrible, awful, ugly, low quality, low-quality, poor quality, "
            "worst quality, horrible, nasty, amateur, lousy, dreadful, unpleasant, displeasing, "
            "flawed, degraded, distorted, ruined, spoiled, broken, disappointing, inferior, "
            "bad-looking, badly made, corrupted, cheap, hideous, unattractive, unacceptable, "
            "of low quality, of bad quality, of terrible quality"
        ),
        _words(
            "high quality, good quality, excellent quality, great quality, no distortion, "
            "no distortions, no defects, no flaws, high fidelity, perfect quality"
        ),
        _words(
            "low quality, bad quality, poor quality, terrible quality, strong distortion, "
            "distortions, visible defects, many flaws, severe degradation, low fidelity"
        ),
    ),
    Axis(
        "sharpness",
        {
            **{"gaussian_blur": 1.0, "motion_blur": 1.0, "defocus_blur": 1.0},
            **{"low_resolution": 0.9, "jpeg2000": 0.6, "webp": 0.4, "aliasing": 0.4},
            **{"pixelate": 0.4},
        },
        0.5,
        _words(
            "sharp, crisp, clear, detailed, highly detailed, sharply detailed, razor sharp, "
            "well defined, fine, very sharp, unblurred, not blurry, non-blurry, crystal clear"
        ),
        _words(
            "blurry, blurred, unsharp, fuzzy, soft, smeared, smudged, hazy-looking, indistinct, "
            "undetailed, unclear, very blurry, not sharp, out-of-focus, blurring"
        ),
        _words(
            "sharp edges, crisp edges, clear edges, fine details, sharp details, crisp details, "
            "clear details, rich details, many details, good sharpness, high sharpness, "
            "well defined edges, no blur, sharp contours, clear lines, fine texture"
        ),
        _words(
            "blurry edges, soft edges, blurred edges, fuzzy edges, lost details, blurry details, "
            "smeared details, missing details, few details, poor sharpness, low sharpness, "
            "blur, strong blur, blurry contours, soft lines, smeared texture, no details"
        ),
    ),
    Axis(
        "focus",
        {"defocus_blur": 1.0, "gaussian_blur": 0.9, "motion_blur": 0.5, "low_resolution": 0.5},
        0.4,
        _words("in focus, focused, well focused, in sharp focus, correctly focused"),
        _words("out of focus, unfocused, badly focused, defocused, poorly focused, bokeh-blurred"),
        _words("good focus, sharp focus, correct focus, perfect focus"),
        _words("bad focus, soft focus, wrong focus, missed focus, defocus blur, lens blur"),
    ),
    Axis(
        "steadiness",
        {"motion_blur": 1.0, "gaussian_blur": 0.4, "defocus_blur": 0.4},
        0.3,
        _words("steady, still, stable, motionless, unshaken"),
        _words("shaky, motion-blurred, motion blurred, shaken, moving, camera-shaken"),
        _words("a steady camera, no motion blur, no camera shake, a stable camera"),
        _words("a shaky camera, motion blur, camera shake, movement blur, strong motion blur"),
    ),
    Axis(
        "resolution",
        {
            **{"low_resolution": 1.0, "pixelate": 0.9, "aliasing": 0.8, "gaussian_blur": 0.7},
            **{"defocus_blur": 0.6, "motion_blur": 0.5, "jpeg2000": 0.5, "jpeg": 0.5, "webp": 0.4},
        },
        0.6,
        _words(
            "high resolution, high-resolution, hd, high definition, high-definition, hi-res, 4k, "
            "ultra hd, full resolution, large, big, full size"
        ),
        _words(
            "low resolution, low-resolution, sd, low definition, low-definition, low-res, lores, "
            "tiny, upscaled, enlarged, upsampled, small"
        ),
        _words("high resolution, full resolution, many pixels, high definition, enough pixels"),
        _words("low resolution, reduced resolution, few pixels, low definition, too few pixels"),
    ),
    Axis(
        "pixelation",
        {"pixelate": 1.0, "aliasing": 0.7, "low_resolution": 0.4, "jpeg": 0.4, "blocks": 0.3},
        0.3,
        _words("smooth, smooth-edged, not pixelated, unpixelated, antialiased, anti-aliased"),
        _words("pixelated, blocky, jagged, aliased, pixelized, mosaic, pixellated, coarse"),
        _words("smooth edges, smooth lines, no visible pixels, no aliasing, no moire"),
        _words(
            "jagged edges, jagged lines, visible pixels, aliasing, moire, large pixels, "
            "pixelation, moire patterns, stair steps, mosaic blocks"
        ),
    ),
    Axis(
        "noise",
        {"gaussian_noise": 1.0, "grain": 1.0, "shot_noise": 1.0, "impulse_noise": 1.0},
        0.45,
        _words(
            "noise-free, noise free, noiseless, clean, low noise, low-noise, denoised, not noisy, "
            "grain-free, grainless, unspoilt, pure"
        ),
        _words(
            "noisy, grainy, very noisy, speckled, high noise, high-noise, noised, dirty, gritty, "
            "granular, snowy, full of noise"
        ),
        _words(
            "no noise, little noise, low noise, no grain, hardly any noise, clean areas, "
            "no visible noise, no image noise"
        ),
        _words(
            "noise, heavy noise, much noise, film grain, strong noise, gaussian noise, "
            "salt and pepper noise, shot noise, color noise, iso noise, sensor noise, strong grain"
        ),
    ),
    Axis(
        "compression",
        {
            **{"jpeg": 1.0, "jpeg2000": 0.9, "webp": 0.9, "posterise": 0.3, "pixelate": 0.3},
            **{"blocks": 0.4},
        },
        0.3,
        _words(
            "uncompressed, artifact-free, artifact free, lossless, raw, lightly compressed, "
            "losslessly compressed, well compressed, free of artifacts"
        ),
        _words(
            "compressed, heavily compressed, over-compressed, overcompressed, artifacted, lossy, "
            "badly compressed, strongly compressed, full of artifacts, jpeg-compressed"
        ),
        _words(
            "no artifacts, no compression artifacts, no jpeg artifacts, no compression, "
            "lossless compression, little compression, no blocking, no ringing, few artifacts"
        ),
        _words(
            "artifacts, compression artifacts, jpeg artifacts, compression, heavy compression, "
            "lossy compression, strong compression, blocking artifacts, ringing artifacts, "
            "many artifacts, jpeg compression, codec artifacts"
        ),
    ),
    Axis(
        "brightness",
        {},
        0.0,
        _words("bright, light, very bright, brightly lit, luminous, sunny, well lit, illuminated"),
        _words("dark, dim, very dark, dimly lit, gloomy, black, poorly lit, unlit, darkened"),
        _words("high brightness, bright light, much light, bright tones, good lighting"),
        _words("low brightness, dim light, little light, dark tones, poor lighting, low light"),
    ),
    Axis(
        "exposure",
        {"dark": 1.0, "overexposed": 1.0, "low_contrast": 0.3},
        0.3,
        _words("well exposed, well-exposed, correctly exposed, properly exposed, evenly exposed"),
        _words(
            "badly exposed, poorly exposed, overexposed, underexposed, wrongly exposed, "
            "over-exposed, under-exposed, blown out, burnt out"
        ),
        _words("good exposure, correct exposure, proper exposure, balanced exposure"),
        _words(
            "bad exposure, wrong exposure, blown highlights, clipped highlights, crushed shadows, "
            "overexposure, underexposure, burnt highlights"
        ),
    ),
    Axis(
        "contrast",
        {},
        0.0,
        _words(
            "high contrast, high-contrast, contrasty, contrasted, punchy, contrast-rich, "
            "strong contrast, good contrast"
        ),
        _words(
            "low contrast, low-contrast, flat, washed out, washed-out, faded, pale, milky, "
            "weak contrast, foggy, contrastless, flat and washed out"
        ),
        _words("high contrast, good contrast, strong contrast, deep blacks, rich contrast"),
        _words("low contrast, poor contrast, weak contrast, flat tones, little contrast, haze"),
    ),
    Axis(
        "colourfulness",
        {},
        0.0,
        _words(
            "colorful, colourful, vivid, saturated, vibrant, richly colored, multicolored, "
            "brightly colored, full of color"
        ),
        _words(
            "dull, colorless, colourless, desaturated, monochrome, gray, grey, drab, "
            "black and white, unsaturated, muted, grayscale"
        ),
        _words("vivid colors, rich colors, strong colors, saturated colors, vibrant colours"),
        _words("dull colors, faded colors, weak colors, no color, muted colours, gray tones"),
    ),
    Axis(
        "colour truth",
        {"colour_cast": 1.0, "posterise": 0.5, "desaturation": 0.5, "impulse_noise": 0.2},
        0.3,
        _words(
            "natural, naturally colored, true-color, color accurate, lifelike, color balanced, "
            "realistic, color-correct, white balanced"
        ),
        _words(
            "unnatural, unnaturally colored, tinted, discolored, color-distorted, off-color, "
            "unrealistic, wrongly colored, badly white balanced"
        ),
        _words(
            "natural colors, accurate colors, correct colors, true colors, good colors, "
            "good white balance, realistic colors, no color cast, natural colours"
        ),
        _words(
            "unnatural colors, distorted colors, wrong colors, false colors, bad colors, "
            "wrong white balance, unrealistic colors, a color cast, a tint, distorted colours"
        ),
    ),
    Axis(
        "gradation",
        {"posterise": 1.0, "jpeg": 0.3},
        0.2,
        _words("smoothly graded, finely graded, continuous-tone, smooth-toned"),
        _words("posterized, posterised, banded, quantized, badly graded, color-banded"),
        _words("smooth gradients, smooth tones, fine gradation, no banding, smooth gradations"),
        _words("banding, color banding, visible bands, coarse gradation, posterization"),
    ),
    Axis(
        "intactness",
        {"holes": 1.0, "blocks": 1.0},
        0.15,
        _words("intact, undamaged, complete, whole, unbroken, error-free"),
        _words("damaged, incomplete, corrupt, glitchy, glitched, torn, destroyed, defective"),
        _words("no missing parts, no errors, no damage, no holes, no glitches, all parts"),
        _words(
            "missing parts, transmission errors, damage, holes, glitches, lost blocks, "
            "missing blocks, displaced blocks, lost packets, black bars"
        ),
    ),
    Axis(
        "naturalness of edges",
        {"oversharpen": 1.0},
        0.2,
        _words("naturally sharp, unprocessed, unedited, halo-free, naturally rendered"),
        _words("oversharpened, over-sharpened, overprocessed, over-processed, too sharp, crunchy"),
        _words("natural edges, no halos, no sharpening, natural sharpness, no ringing halos"),
        _words("halos, sharpening halos, oversharpened edges, too much sharpening, edge halos"),
    ),
)

NOUNS = _words(
    "photo, image, picture, photograph, snapshot, shot, photo, image, picture, photography, frame, "
    "jpeg, digital photo, camera picture, pic, scene, view, file"
)
CONTENTS = _words(
    "a cat, a dog, a house, people, a person, a woman, a man, a child, a mountain, the sea, "
    "a street, a city, a car, a flower, flowers, a tree, a forest, food, a bird, an animal, "
    "a face, a building, a bridge, a landscape, the sky, a room, a table, a bicycle, a boat, "
    "a horse, a garden, a church, a castle, a lake, a beach, an object, a cup of coffee, a rocket, "
    "fruit, a market, a crowd, a train, snow, a sunset, a river, a bee, a statue, a museum, "
    "a tower, toys"
)
WITH_TEMPLATES = (
    "{n} with {x}",
    "a {n} with {x}",
    "a {n} of {c} with {x}",
    "{x}",
    "this {n} has {x}",
    "a {n} that has {x}",
    "the {n} shows {x}",
    "{x} in the {n}",
    "{x} in a {n} of {c}",
)
ADJECTIVE_TEMPLATES = (
    "{x} {n}",
    "a {x} {n}",
    "{x} {n} of {c}",
    "a {x} {n} of {c}",
    "the {n} is {x}",
    "this {n} is {x}",
    "a {n} that is {x}",
    "the {x} {n}",
    "{x}",
    "a {n} of {c}, {x}",
    "this is a {x} {n}",
    "a {n}, {x}",
    "it is a {x} {n} of {c}",
    "what a {x} {n}",
    "{n}: {x}",
    "one {x} {n}",
    "{c} in a {x} {n}",
)
WITHOUT_TEMPLATES = (
    "{n} without {x}",
    "a {n} without {x}",
    "a {n} of {c} without {x}",
    "without {x}",
    "this {n} is without {x}",
    "a {n} that is without {x}",
    "{c} without {x}",
    "the {n} without any {x}",
)
# An adjective and something after it that says the same (`{x}`, then `{y}` or, denied, `{z}`).
DOUBLE_TEMPLATES = (
    "a {x} {n} with {y}",
    "{x} {n} with {y}",
    "a {x} {n} of {c} with {y}",
    "a {x} {n} without {z}",
    "{x} {n} without {z}",
    "a {x} {n} of {c} without {z}",
    "the {n} is {x}, with {y}",
    "the {n} is {x}, without {z}",
)
NEUTRAL_TEMPLATES = ("a {n}", "a {n} of {c}", "{n}", "the {n}", "this is a {n} of {c}", "{c}")
STRENGTHS = {"slightly": 0.4, "a bit": 0.4, "rather": 0.8, "very": 1.0, "extremely": 1.0}

# Wordings that no caption spells out, in lower case, without punctuation and a leading "a": the
# pairs of CLIP-IQA, of pyiqa, and of this project's default set `quality`. Their words are seen in
# other company only.
HELD_OUT = frozenset(
    {
        *("good photo", "bad photo", "good image", "bad image", "sharp image", "blurry image"),
        *("sharp edges", "blurry edges", "high resolution image", "low resolution image"),
        *("noise-free image", "noise free image", "noisy image"),
        *(
            text.lower().removeprefix("a ")
            for pair in NAMED_PAIRS["quality"]
            for text in (pair.positive, pair.negative)
        ),
    }
)


@dataclass(frozen=True)
class Caption:
    """A caption and what it says: an axis (-1: nothing) and a sign (+1, -1, or weaker).

    `second` is another axis that the caption speaks of as well, with the same sign; -1 for none.
    """

    text: str
    axis: int
    sign: float
    second: int = -1


def draw_caption(rng: random.Random) -> Caption:
    """Draw one caption at random.

    Args:
        rng: Decides everything.

    Returns:
        A caption that is not in `HELD_OUT`.
    """
    while True:
        words = {"n": rng.choice(NOUNS), "c": rng.choice(CONTENTS)}
        number, second, sign = -1, -1, 0.0
        form = rng.random()
        if form < 0.04:
            template = rng.choice(NEUTRAL_TEMPLATES)
        else:
            number = 0 if rng.random() < 0.12 else rng.randrange(len(AXES))
            axis, good = AXES[number], rng.random() < 0.5
            sign = 1.0 if good else -1.0
            if form < 0.30:
                template = rng.choice(WITH_TEMPLATES)
                words["x"] = rng.choice(axis.phrases(good))
            elif form < 0.42:
                template = rng.choice(WITHOUT_TEMPLATES)
                words["x"] = rng.choice(axis.absent(good))
            else:
                template = rng.choice(ADJECTIVE_TEMPLATES)
                words["x"] = rng.choice(axis.adjectives(good))
                has_modifier = words["x"].startswith(("of ", "very", "not ", "in ", "out ", "full"))
                extra = rng.random()
                if extra < 0.40 and not has_modifier:
                    template = rng.choice(DOUBLE_TEMPLATES)
                    words["y"] = rng.choice(axis.phrases(good))
                    words["z"] = rng.choice(axis.absent(good))
                elif extra < 0.48 and not has_modifier:
                    strength = rng.choice(tuple(STRENGTHS))
                    words["x"] = f"{strength} {words['x']}"
                    sign *= STRENGTHS[strength]
                elif extra < 0.56:
                    other = axis
                    if rng.random() < 0.5:
                        second = rng.randrange(len(AXES))
                        other = AXES[second]
                    words["x"] += rng.choice((", ", " and ")) + rng.choice(other.adjectives(good))
        text = template.format(**words)
        if text.strip(" .!,").lower().removeprefix("a ") in HELD_OUT or text.lower() in HELD_OUT:
            continue
        text += rng.choice(("", "", ".", "!"))
        return Caption(text, number, sign, second)


def perceived(quality: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stretch HaarPSI `(N,)` to `[0, 1]`, mild distortions more than severe ones; order is kept."""
    return 1 - np.clip((1 - quality) / 0.85, 0, 1) ** 0.75


def axis_targets(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where each rendered image lies on each axis.

    Args:
        table: Rows of the cache `(N, columns)`; see `tools.tiny.render.COLUMNS`.

    Returns:
        `(N, axes)` in `[0, 1]`; 1 is the positive end. The quality axis is `perceived`
        HaarPSI. Brightness, contrast and colourfulness mix what is measured with what was done.
    """
    kind1, severity1, kind2, severity2, quality, luma, contrast, colour = table[:, :8].T
    loss = 1 - perceived(quality)
    total = np.maximum(severity1 + severity2 + 0.2 * (kind2 >= 0), 1e-6)
    share = np.zeros((len(table), len(KINDS)), np.float32)
    dose = np.zeros_like(share)
    rows = np.arange(len(table))
    for kinds, severities in ((kind1, severity1), (kind2, severity2)):
        there = kinds >= 0
        part = (severities + 0.1 * (kind2 >= 0)) / total
        share[rows[there], kinds[there].astype(int)] = part[there]
        dose[rows[there], kinds[there].astype(int)] = 0.1 + 0.9 * severities[there]
    share /= np.maximum(share.sum(1, keepdims=True), 1e-6)
    # An attribute says how much was done as well as how much it harms; quality is harm alone.
    strength = 0.5 * share * loss[:, None] + 0.5 * dose
    out = np.empty((len(table), len(AXES)), np.float32)
    for number, axis in enumerate(AXES):
        own = sum(
            (w * strength[:, KINDS.index(kind)] for kind, w in axis.weights.items()),
            start=np.zeros(len(table), np.float32),
        )
        out[:, number] = 1 - np.maximum(own, axis.halo * loss)
    names = [axis.name for axis in AXES]

    def done(kind: str) -> NDArray[np.float32]:
        return strength[:, KINDS.index(kind)]

    # Weighed so that hardly an image is clipped: the strong levels of a ladder must differ.
    out[:, names.index("brightness")] = (
        0.5 + 0.6 * (luma - 0.45) - 0.2 * done("dark") + 0.15 * done("overexposed")
    )
    out[:, names.index("contrast")] = 0.7 + 0.8 * (contrast - 0.2) - 0.5 * done("low_contrast")
    out[:, names.index("colourfulness")] = 0.6 + 0.5 * (colour - 0.35) - 0.35 * done("desaturation")
    return np.clip(out, 0, 1)
