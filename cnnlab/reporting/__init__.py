"""What is shown: figures over several runs, tables, links into the MLflow UI."""
