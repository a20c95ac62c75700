"""Networks for dense tasks in 8 bits, at sizes that the file leaves open."""

import numpy as np
import pytest
import torch

from signbit.models import create_model

for package in ("onnx", "onnxruntime", "openvino"):
    pytest.importorskip(package)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_joined_maps_of_open_sizes_are_quantized(tmp_path):
    from signbit.rivals.engines import OnnxRuntime, OpenVINO, export_onnx, quantize

    torch.manual_seed(0)
    model = create_model("centernet_resnet18", num_classes=3, width=0.125).eval()
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 96)).astype(np.float32)
    fp32 = export_onnx(model, images, tmp_path / "f.onnx", any_size=True)
    int8 = quantize(fp32, images, tmp_path / "q.onnx")
    for size in ((64, 96), (96, 32)):
        x = np.random.default_rng(1).standard_normal((1, 3, *size)).astype(np.float32)
        with torch.no_grad():
            expected = [y.numpy() for y in model(torch.from_numpy(x))]
        for found, tolerance in (
            (OpenVINO(fp32, None, 1).predict(x), 1e-3),
            (OpenVINO(int8, None, 1).predict(x), 0.2),
            (OnnxRuntime(int8, 1, None).predict(x), 0.2),
        ):
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(ours, theirs, atol=tolerance)
