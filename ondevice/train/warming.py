"""The engine of a launch, and what is told where its blocks are compiled: that it will take a while, and how long it
took."""

from __future__ import annotations

from ondevice.run.recipe import Fit, Recipe
from ondevice.run.telemetry import TelemetryWriter
from ondevice.train.desk import Display
from ondevice.train.engine import Engine
from ondevice.train.state import TrainState

__all__ = ["made_engine", "tell_compiled", "tell_compiling"]


def made_engine(state: TrainState, recipe: Recipe, fit: Fit, *, telemetry: TelemetryWriter, display: Display) -> Engine:
    """Ready for the next step. Raises DeviceError where its blocks cannot be compiled."""
    tell_compiling(recipe, display=display)
    engine = Engine.of(state.model, state.optimizer, recipe, fit)
    tell_compiled(engine, state.step, telemetry=telemetry, display=display)
    return engine


def tell_compiling(recipe: Recipe, *, display: Display, anew: bool = False) -> None:
    """Says before it begins that compiling takes a while, where anything is compiled; ``anew``: the fit changed."""
    if recipe.train.compile:
        when = "for the changed fit: a minute or so" if anew else "a minute or so at a first launch, less at later ones"
        display.say(f"Compiling the model's blocks{' ' if anew else ': '}{when} ...")


def tell_compiled(engine: Engine, step: int, *, telemetry: TelemetryWriter, display: Display) -> None:
    """Says how long compiling for the fit in force took, where anything is compiled."""
    if engine.compile_s is not None:
        text = f"The model's blocks were compiled in {engine.compile_s:.1f} s."
        telemetry.write("note", step, text=text, compile_s=round(engine.compile_s, 3))
        display.say(text)
