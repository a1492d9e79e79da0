"""Patch embeddings and the heaviest mixture components in the plane of the first two principal components."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from sklearn.decomposition import PCA

from dinodp.report.figures.data import Array, FigureData, require_mixture
from dinodp.report.figures.examples import patch_coverage
from dinodp.report.figures.style import BLACK, ORANGE, SKY, VERMILION, new_figure, styled

NAME = "pca_components"
MAX_IMAGES = 32
MAX_PATCHES = 6000
MAX_COMPONENTS = 12
MIN_COVERAGE = 0.5


@styled
def draw(data: FigureData) -> Figure:
    """Scatter of test patches; ellipses at 1 and 2 standard deviations of the components with the largest weights."""
    model = require_mixture(data, NAME, "means", "covariances_diag", "weights")
    assert model.means is not None
    assert model.covariances_diag is not None
    assert model.weights is not None
    patches, anomalous = _sample(data)
    pca = PCA(n_components=2, svd_solver="full").fit(patches)
    figure = new_figure(130)
    axes = figure.subplots()
    _scatter(axes, pca.transform(patches), anomalous)
    heaviest = np.argsort(-model.weights, kind="stable")[:MAX_COMPONENTS]
    for index in heaviest:
        _draw_component(axes, pca, model.means[index], model.covariances_diag[index], float(model.weights[index]))
    share = 100 * pca.explained_variance_ratio_
    axes.set_xlabel(f"Principal component 1 ({share[0]:.1f} % of variance)")
    axes.set_ylabel(f"Principal component 2 ({share[1]:.1f} % of variance)")
    axes.set_aspect("equal", adjustable="datalim")
    total = 100 * float(model.weights[heaviest].sum())
    axes.set_title(
        f"{model.name}: the {len(heaviest)} heaviest of {len(model.means)} components ({total:.0f} % of weight)"
    )
    figure.suptitle(data.title)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, markerscale=3)
    return figure


def _sample(data: FigureData) -> tuple[Array, Array]:
    """Patches [n, D] of evenly spaced test images, and whether a lesion covers more than half of each [n]."""
    count = len(data.manifest)
    rows = sorted({int(row) for row in np.linspace(0, count - 1, min(count, MAX_IMAGES)).round()})
    tokens = data.read_tokens(rows)
    coverage = patch_coverage(data.manifest.iloc[rows], (int(tokens.shape[1]), int(tokens.shape[2])), data.mask_rule)
    flat, anomalous = tokens.reshape(-1, tokens.shape[-1]), (coverage > MIN_COVERAGE).ravel()
    if len(flat) > MAX_PATCHES:
        chosen = np.sort(np.random.default_rng(0).choice(len(flat), MAX_PATCHES, replace=False))
        flat, anomalous = flat[chosen], anomalous[chosen]
    return flat, anomalous


def _scatter(axes: Axes, points: Array, anomalous: Array) -> None:
    look: dict[str, Any] = {"s": 3, "linewidths": 0, "rasterized": True}
    axes.scatter(*points[~anomalous].T, color=SKY, alpha=0.5, label="Other patch", **look)
    if anomalous.any():
        axes.scatter(*points[anomalous].T, color=VERMILION, alpha=0.8, label="Lesion covers > 50 % of patch", **look)


def _draw_component(axes: Axes, pca: PCA, mean: Array, variances: Array, weight: float) -> None:
    """Ellipses of the component's diagonal covariance projected onto the plane; the mean's dot grows with weight."""
    centre = pca.transform(mean[None])[0]
    directions = pca.components_
    lengths, axes_2d = np.linalg.eigh(directions * variances @ directions.T)
    angle = float(np.degrees(np.arctan2(axes_2d[1, 1], axes_2d[0, 1])))
    first = not axes.patches
    for sigma, style in ((1, "-"), (2, "--")):
        width, height = 2 * sigma * np.sqrt(np.maximum(lengths[::-1], 0))
        ellipse = Ellipse(
            tuple(centre), width, height, angle=angle, fill=False, edgecolor=BLACK, linestyle=style, lw=0.9
        )
        if first:
            ellipse.set_label(f"Component, {sigma} standard deviation{'s' * (sigma > 1)}")
        axes.add_patch(ellipse)
    axes.plot(
        *centre, marker="o", markersize=2 + 8 * weight**0.5, color=ORANGE, markeredgecolor=BLACK, markeredgewidth=0.5
    )
