-- Run by the PostgreSQL image when its volume is new: the database of Dagster's storage, beside that of the products.
create database dagster;
