"""What may be asked of the live model, and that only what was given overrides the recipe."""

import dataclasses

import pytest

from ondevice.errors import UsageError
from ondevice.run.control import Letter
from ondevice.run.recipe import SampleRecipe
from ondevice.run.schema import Limits
from ondevice.train.orders import Orders, obey
from ondevice.train.sample_request import SampleRequest, read_request

RECIPE = SampleRecipe(
    steps=(1,),
    prompts=("a",),
    max_new_tokens=8,
    temperature=0.8,
    top_k=50,
    top_p=0.95,
    repetition_penalty=1.0,
    seed=1,
)


def test_only_what_was_given_overrides_the_recipe():
    request = read_request({"prompt": "", "temperature": 0, "seed": 7}, letter="abc")
    assert request.applied_to(RECIPE) == dataclasses.replace(RECIPE, temperature=0.0, seed=7)
    assert request.told == {"letter": "abc", "temperature": 0.0, "seed": 7}
    assert SampleRequest(prompt="p").applied_to(RECIPE) == RECIPE
    assert SampleRequest(prompt="p").told == {}


REFUSED = [
    ({}, "needs a prompt"),
    ({"prompt": None}, "needs a prompt"),
    ({"prompt": "a", "temprature": 1}, "'temprature': not a way to choose tokens (did you mean 'temperature'?)"),
    ({"prompt": "a", "count": 3}, "'count': not a way to choose tokens"),
    ({"prompt": "a", "seed": "x"}, "'sample.seed' must be a whole number"),
    ({"prompt": "a", "top_p": 0}, "'sample.top_p' must be more than 0"),
    ({"prompt": "a", "temperature": None}, "'sample.temperature' must be a number"),
    ({"prompt": "a", "max_new_tokens": 4097}, "at most 4,096 tokens at once"),
]


@pytest.mark.parametrize(("args", "says"), REFUSED)
def test_a_letter_that_asks_for_nonsense_is_refused_in_a_sentence(args, says):
    with pytest.raises(UsageError) as caught:
        read_request(args)
    assert says in str(caught.value)
    orders, limits = Orders(), Limits()
    _, answer = obey(Letter("f", "id", 1.0, "sample", args, "test"), orders, limits, None)
    assert answer["ok"] is False and says in answer["why"]
    assert orders.samples == [] and not orders.asked
