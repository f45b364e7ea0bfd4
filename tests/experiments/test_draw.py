from experiments import plateau, readme


def test_figures_are_drawn_without_example_pages_where_ours_was_left_out(tmp_path):
    results = (readme.RESULTS / "plateau_camvid.json").read_bytes()
    (tmp_path / "results.json").write_bytes(results)
    plateau.draw(tmp_path)
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {"rate_performance.png", "plateau.png"}
