"""The strict local AWS: a reverse proxy in front of MiniStack that behaves as strictly as AWS's documentation.

MiniStack keeps the state and does the work. The proxy recognises each call by botocore's service models, validates it,
authorises it as IAM does, and adds the behaviours of AWS that MiniStack lacks: answers that AWS gives and MiniStack
does not, settings that take time to settle, limits and refusals.

    __main__.py       the command line
    wire.py           HTTP requests and answers as calls and results, by botocore's service models
    models.py         validates calls against the models
    registry.py       the types, and the list of behaviours
    server.py         the server and its control interface
    authorization.py  authorises calls by the policies of the caller, and simulates policies
    actions.py        the IAM actions and resources of each operation
    policies.py       evaluates policies
    s3.py, s3_settings.py, s3_notifications.py, s3_objects.py, s3_state.py: the behaviours of S3
    iam.py, functions.py, tables.py, transactions.py, scaling.py, tagging.py, logs.py, queues.py, streams.py, alarms.py:
    those of the others
"""
