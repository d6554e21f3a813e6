"""From a model's graph to plans for GPUs and int8 graphs for CPUs, and to the bundle that holds them.

``graphs`` writes the precision into the graph (``bfloat``, ``int8``), ``plan`` builds a plan from it,
``package`` writes the bundle, ``build`` and ``quantize`` are the two commands' work.
"""
