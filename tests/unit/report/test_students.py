"""The curve of a student's loss on the page."""

from dinodp.report.students import HEIGHT, WIDTH, polyline


def test_a_curve_runs_from_left_to_right_and_falls_with_the_loss():
    assert polyline([1.0, 0.5, 0.25]) == f"0.0,0.0 {WIDTH / 2},{HEIGHT / 2} {WIDTH}.0,{HEIGHT * 0.75}"


def test_a_single_round_is_a_level_line_and_no_loss_divides_by_nothing():
    assert polyline([0.5]) == f"0.0,0.0 {WIDTH}.0,0.0"
    assert polyline([0.0, 0.0]) == f"0.0,{HEIGHT}.0 {WIDTH}.0,{HEIGHT}.0"
