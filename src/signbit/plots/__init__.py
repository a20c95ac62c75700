"""Every picture that signbit draws; each function returns a PNG's bytes and can save it."""

from signbit.plots.boxes import plot_boxes
from signbit.plots.comparison import plot_comparison
from signbit.plots.curves import plot_curves
from signbit.plots.enlargement import plot_enlargement
from signbit.plots.landscape import plot_landscape
from signbit.plots.masks import plot_mask
from signbit.plots.matches import plot_matches
from signbit.plots.pareto import plot_pareto
from signbit.plots.profile import plot_profile
from signbit.plots.report import render_report
from signbit.plots.roofline import plot_roofline
from signbit.plots.samples import plot_samples
from signbit.plots.speed import plot_speed
from signbit.plots.teachers import plot_teachers

__all__ = [
    "plot_boxes",
    "plot_comparison",
    "plot_curves",
    "plot_enlargement",
    "plot_landscape",
    "plot_mask",
    "plot_matches",
    "plot_pareto",
    "plot_profile",
    "plot_roofline",
    "plot_samples",
    "plot_speed",
    "plot_teachers",
    "render_report",
]
