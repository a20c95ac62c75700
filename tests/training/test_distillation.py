"""Losses of distillation, against a slow loop over samples, teachers and classes."""

import math

import pytest
import torch

from signbit.training.distillation import (
    gap_sensitive_loss,
    gap_weights,
    mean_loss,
    soft_cross_entropy,
)


def logits(teachers, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, *others = (
        torch.randn(6, 5, dtype=torch.float64, generator=generator) * 2 for _ in range(teachers + 1)
    )
    return student.requires_grad_(), others


def softmax(row, temperature=1.0):
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def slow(student, teachers, temperatures, reduction):
    """Loss and weights [N][teachers] by the formulas, one number at a time."""
    count = len(student)
    gaps = [[0.0] * len(teachers) for _ in range(count)]
    for i in range(count):
        for t, (teacher, temperature) in enumerate(zip(teachers, temperatures, strict=True)):
            wanted = softmax(teacher[i], temperature)
            given = softmax(student[i], temperature)
            gaps[i][t] = -sum(p * math.log(q) for p, q in zip(wanted, given, strict=True))
    weights = [softmax(row) for row in gaps]
    losses = [
        [gap * temperature**2 for gap, temperature in zip(row, temperatures, strict=True)]
        for row in gaps
    ]
    if reduction == "batch_mean":
        means = [sum(row[t] for row in losses) / count for t in range(len(teachers))]
        losses = [means] * count
        if len(teachers) == 1:
            return means[0] * 0.5, weights
    total = 0.0
    for i in range(count):
        total += sum(a * x for a, x in zip(weights[i], losses[i], strict=True)) / len(teachers)
    return total / count, weights


@pytest.mark.parametrize("reduction", ["sample", "batch_mean"])
@pytest.mark.parametrize("temperatures", [[1.0], [4.0], [1.0, 1.0], [2.0, 0.5], [1.0, 3.0, 2.0]])
def test_gap_sensitive_loss_is_what_the_formula_says(temperatures, reduction):
    student, teachers = logits(len(temperatures))
    rows = [tensor.tolist() for tensor in teachers]
    expected, weights = slow(student.tolist(), rows, temperatures, reduction)
    loss = gap_sensitive_loss(student, teachers, temperatures, reduction)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    found = gap_weights(student, teachers, temperatures)
    assert found.flatten().tolist() == pytest.approx([a for row in weights for a in row], rel=1e-12)


@pytest.mark.parametrize("reduction", ["sample", "batch_mean"])
def test_no_gradient_flows_through_the_weights(reduction):
    """The gradient is that of the slow loop's sum with weights held fast, by differences."""
    student, teachers = logits(2)
    gap_sensitive_loss(student, teachers, reduction=reduction).backward()
    weights = gap_weights(student, teachers)
    assert not weights.requires_grad

    def held(values):
        losses = torch.stack([soft_cross_entropy(values, z) for z in teachers], 1)
        if reduction == "batch_mean":
            losses = losses.mean(0, keepdim=True)
        return float((weights * losses).sum(1).mean() / 2)

    for i, c in ((0, 0), (3, 2), (5, 4)):
        step = torch.zeros_like(student)
        step[i, c] = 1e-6
        values = student.detach()
        slope = (held(values + step) - held(values - step)) / 2e-6
        assert student.grad[i, c].item() == pytest.approx(slope, rel=1e-5)


def test_the_further_teacher_is_heard_most():
    student, _ = logits(1)
    near, far = student.detach().clone(), student.detach().flip(1)
    weights = gap_weights(student, [near, far])
    assert (weights[:, 1] > weights[:, 0]).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(6, dtype=torch.float64))


def test_the_reductions_differ():
    student, teachers = logits(2)
    sample, batch = (
        gap_sensitive_loss(student, teachers, None, r) for r in ("sample", "batch_mean")
    )
    assert abs(sample.item() - batch.item()) > 1e-3


def test_one_teacher_is_plain_distillation():
    student, (teacher,) = logits(1)
    plain = gap_sensitive_loss(student, [teacher])
    published = gap_sensitive_loss(student, [teacher], reduction="batch_mean")
    torch.testing.assert_close(published, plain / 2)
    torch.testing.assert_close(mean_loss(student, [teacher]), plain)


@pytest.mark.parametrize("temperatures", [[1.0], [4.0], [1.0, 3.0]])
def test_mean_loss_and_its_gradient(temperatures):
    student, teachers = logits(len(temperatures))
    loss = mean_loss(student, teachers, temperatures)
    expected, gradient = 0.0, torch.zeros_like(student)
    for teacher, temperature in zip(teachers, temperatures, strict=True):
        p = torch.softmax(teacher / temperature, 1)
        log_q = torch.log_softmax(student.detach() / temperature, 1)
        expected += temperature**2 * -(p * log_q).sum(1).mean() / len(teachers)
        gradient += temperature * (log_q.exp() - p) / 6 / len(teachers)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    torch.testing.assert_close(student.grad, gradient)


@pytest.mark.parametrize("function", [gap_sensitive_loss, gap_weights, mean_loss])
def test_teachers_and_temperatures_must_fit(function):
    student, teachers = logits(2)
    with pytest.raises(ValueError, match="at least one teacher"):
        function(student, [])
    with pytest.raises(ValueError, match="2 teachers but 1 temperatures"):
        function(student, teachers, [1.0])
