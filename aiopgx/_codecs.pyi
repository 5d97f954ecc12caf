# Decoders: the values of a PGresult as the objects that psycopg2 makes of them. C level only.
