"""What each finding means and what helps, in brief: a report is read far from docs/collapse.md, which says more."""

from __future__ import annotations

from imtok.analysis.statistics import Finding

EXPLANATIONS = {
    "collapsed-codebook": (
        "Nearly all tokens are a few codes, so the tokens carry little. A VQ codebook needs dead-code "
        "restarts, a k-means start or fewer code channels; FSQ needs a longer run or a lower learning rate. "
        "Images that really are all alike need nothing."
    ),
    "collapsed-stage": (
        "Some of several codebooks carry little, which statistics of all codebooks together hide. A late "
        "residual stage with nothing to add is best left out (a smaller depth)."
    ),
    "dead-codes": (
        "Codes that never occur cost bits in the file and a wider softmax in a generator, but no quality. "
        "Dead-code restarts bring them into use, and a smaller codebook would do as well."
    ),
    "nearly-dead-codes": (
        "A generator will hardly learn when to use codes that occur so rarely. What helps against dead codes "
        "helps here."
    ),
    "too-few-tokens": (
        "Change nothing before more images are counted: codes that a small set leaves out may well occur in a "
        "larger one."
    ),
    "dominant-code": (
        "Look at the code in this report. Where it stands for white paper or black sky, the images are simply "
        "so, and a coder stores it in almost no bits. Otherwise an entropy loss or fewer codes help."
    ),
    "uneven-use": (
        "A few codes make up most tokens, the others are exceptions. Images with large plain areas are simply "
        "so; otherwise an entropy loss or fewer codes help."
    ),
    "idle-dimension": (
        "A dimension with nearly one value carries nothing, and codes with its other values are nearly all "
        "dead. One dimension fewer does as well."
    ),
    "compressible-tokens": (
        "Nothing is wrong where the tokens are to be compressed. For a generator, a coarser grid means fewer "
        "predictions and fewer codes easier ones, at nearly the same content."
    ),
    "duplicate-images": (
        "The table of images with the same codes names the largest groups. Copies of an image belong on one "
        "side of the split into training and validation. If they are no copies, the tokenizer cannot tell "
        "them apart."
    ),
    "skipped-inputs": (
        "A broken file now and then is usual; more of them point to a broken download or to a format that "
        "cannot be read."
    ),
    "near-duplicate-codes": (
        "The decoder cannot tell such codes apart, so a generator has to predict what makes no difference. "
        "What helps against dead codes helps here."
    ),
    "low-rank-codebook": (
        "The codes differ in few of their channels. Fewer channels cost no quality and make the search faster."
    ),
    "unstable-tokens": (
        "Keep the tokens instead of encoding decoded images again. Where images are decoded and encoded "
        "repeatedly, as in editing, train longer."
    ),
    "sensitive-tokens": (
        "Tokens that depend on exact pixels are hard to predict. Train longer, take fewer codes, or add small "
        "shifts to the training images."
    ),
}


def explained(finding: Finding) -> str:
    """Return what a finding means and what helps, or the page that says it where this module does not know it."""
    return EXPLANATIONS.get(finding.name) or f"More in {finding.page}"
