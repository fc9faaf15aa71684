"""The record in MLflow: where it is, how one run gets into it, and how runs come back as a table.

    RunLogger ─► journal on the local disk ─► courier (a thread) ─► MLflow

Training writes into a journal, which can't fail for a network's sake; a thread carries the journal into
MLflow. What a crash or a lost server leaves behind is carried there by the next command.
"""
