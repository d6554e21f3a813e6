"""From a model's graph to plans for GPUs, and to the bundle that holds them.

``graphs`` writes the precision into the graph (``bfloat``, ``quantize``), ``plan`` builds a plan from
it, ``progress`` shows how far that is, ``timing`` keeps what was measured, ``package`` makes the bundle.
"""
