"""Running compiled networks: a thin wrapper of the C API that needs NumPy and nothing else."""

from signbit.runtime.benchmark import benchmark, cpu_name, doctor_info
from signbit.runtime.detection import DetectedBox, detect, find_boxes
from signbit.runtime.library import instruction_sets
from signbit.runtime.matching import KeyPoints, describe, match
from signbit.runtime.peaks import ceiling, measure_peak, measure_peaks
from signbit.runtime.segmentation import segment
from signbit.runtime.session import Session, available_threads, load
from signbit.runtime.superresolution import enlarge

__all__ = [
    "DetectedBox",
    "KeyPoints",
    "Session",
    "available_threads",
    "benchmark",
    "ceiling",
    "cpu_name",
    "describe",
    "detect",
    "doctor_info",
    "enlarge",
    "find_boxes",
    "instruction_sets",
    "load",
    "match",
    "measure_peak",
    "measure_peaks",
    "segment",
]
