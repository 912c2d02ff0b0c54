"""Judgement: how much a device may work now, from a reading, the limits of the person and what happened before.

Training asks `ondevice.governor.decide` at every safe point and carries out the order; plans and reports ask
`ondevice.governor.forecast`. Everything here is a pure function of its arguments: it must not know a clock, a disk, a
sensor, a model or torch.
"""
