"""Bucket notifications as MinIO and Amazon S3 send them."""

# As MinIO's Kafka target sends it (field for field; the owner's names are made up).
MINIO = {
    "EventName": "s3:ObjectCreated:Put",
    "Key": "uploads/2026/a+b%26c.jpg",
    "Records": [
        {
            "eventVersion": "2.0",
            "eventSource": "minio:s3",
            "awsRegion": "",
            "eventTime": "2026-02-02T02:40:00.123Z",
            "eventName": "s3:ObjectCreated:Put",
            "userIdentity": {"principalId": "uploader"},
            "requestParameters": {
                "principalId": "uploader",
                "region": "",
                "sourceIPAddress": "::1",
            },
            "responseElements": {"x-amz-request-id": "18A", "x-minio-origin-endpoint": "http://m"},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "Config",
                "bucket": {
                    "name": "uploads",
                    "ownerIdentity": {"principalId": "uploader"},
                    "arn": "arn:aws:s3:::uploads",
                },
                "object": {
                    "key": "2026%2Fa%2Bb%26c+d.jpg",
                    "size": 31337,
                    "eTag": "f1c9645dbc14efddc7d8a322685f26eb",
                    "contentType": "image/jpeg",
                    "userMetadata": {"content-type": "image/jpeg"},
                    "sequencer": "18A1F2B3C4D5E6F7",
                },
            },
            "source": {"host": "::1", "port": "", "userAgent": "MinIO (linux; amd64)"},
        }
    ],
}
# As Amazon S3 sends it, here through a bridge that keeps the JSON as it is.
AWS = {
    "Records": [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": "eu-central-1",
            "eventTime": "2026-02-02T02:40:00.000Z",
            "eventName": "ObjectCreated:CompleteMultipartUpload",
            "userIdentity": {"principalId": "AWS:AIDA"},
            "requestParameters": {"sourceIPAddress": "192.0.2.1"},
            "responseElements": {"x-amz-request-id": "C3D1", "x-amz-id-2": "Fiv"},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "images",
                "bucket": {
                    "name": "my-bucket",
                    "ownerIdentity": {"principalId": "A3N"},
                    "arn": "arn:aws:s3:::my-bucket",
                },
                "object": {
                    "key": "holiday/beach+1.png",
                    "size": 1024,
                    "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                    "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
                    "sequencer": "0055AED6DCD90281E5",
                },
            },
        }
    ]
}


def aws(**changes: object) -> dict[str, object]:
    """Amazon's notification with fields of its one record replaced."""
    entry = AWS["Records"][0] | changes
    return {"Records": [entry]}
