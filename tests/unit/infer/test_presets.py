"""Which settings hold, and who is said to have recommended them."""

from __future__ import annotations

from ondevice.infer.generation_config import to_generation_config, write_generation_config
from ondevice.infer.presets import choose_settings
from ondevice.infer.sampling import Sampling


def test_only_a_sweep_is_called_a_sweep(tmp_path):
    """Every export for transformers, and every stranger's folder, has settings that nobody swept."""
    write_generation_config(tmp_path, {"do_sample": True, "temperature": 0.8, "top_k": 50})
    chosen = choose_settings(tmp_path, preset_name=None, given={})
    assert chosen.note == "by its generation_config.json: temperature 0.8, top k 50"
    swept = to_generation_config(Sampling(temperature=0.5), max_new_tokens=9, eot_id=0, origin={"sweep": "abc"})
    write_generation_config(tmp_path, swept)
    assert choose_settings(tmp_path, preset_name=None, given={}).note.startswith(
        "recommended by a sweep: temperature 0.5"
    )
    assert choose_settings(tmp_path / "none", preset_name=None, given={}).note == ""
