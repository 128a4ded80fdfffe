"""Ranking losses on logit margins: pure functions, one value for each list.

Every loss here is called as ``loss(margins, targets, mask)``:

* ``margins`` (..., L): the student's logit margins of one list of L images; leading dimensions are
  further lists, such as one for each prompt pair. Any range; values and gradients stay finite far
  beyond +-100. Half precision is computed in float32.
* ``targets`` (..., L): what to agree with, higher is better: teacher scores or opinion scores.
  Finite. Broadcast, so that one list of targets serves all prompt pairs.
* ``mask`` (..., L) bool: False removes an image from its list; the values in its place (NaN too)
  affect neither the loss nor the gradient. None is all True.

It returns (...): one loss for each list, for the caller to average. A list with nothing to learn (no
image, one image, no pair to compare, equal targets where a loss uses only their order) costs exactly 0
and has no gradient. No loss depends on the order in which the images are given.

Ties: images of equal target have no order to learn. The pairwise losses and ``listmle`` don't compare
them; ``listnet``, ``approx_ndcg``, ``soft_spearman`` and ``plcc`` give them equal weight because the
target is a number there.

``table`` holds the losses by name, and finds those of other packages.
"""
