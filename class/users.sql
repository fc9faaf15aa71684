-- A database for MLflow's users, beside the one for its runs.
CREATE DATABASE mlflow_users;
