from fraud import progress


def test_lines_go_to_the_innermost_listener_and_else_to_the_log(capsys):
    outer, inner = [], []
    with progress.reported_to(outer.append):
        progress.report("1")
        with progress.reported_to(inner.append):
            progress.report("2")
        progress.report("3")
    progress.report("4")
    assert (outer, inner, capsys.readouterr().out) == (["1", "3"], ["2"], "4\n")
