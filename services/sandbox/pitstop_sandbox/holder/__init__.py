"""The holder: one small process per sandbox that owns its processes and outlives the host process.

Standard library only, and little of it: a host keeps one per running job. Start one with `command()`; talk to it with
`frames`; end what an earlier host process left with `sweep`.
"""
