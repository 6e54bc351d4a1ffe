"""The part of S3 that drain speaks, described for botocore.

botocore makes its client from a description of the service, and that of all of S3 is
four megabytes of JSON, with as much again about regions. This is the same for the
operations and the fields that drain uses, and for one endpoint: the one given. The
form is botocore's own (its ``data/s3/…/service-2.json``), the names and places are
those of the S3 API reference. A field that is not here is not sent and not read.
"""

from typing import Any

_Shape = dict[str, Any]


def _header(name: str, kind: str = "String") -> _Shape:
    return {"shape": kind, "location": "header", "locationName": name}


def _query(name: str) -> _Shape:
    return {"shape": "String", "location": "querystring", "locationName": name}


def _element(name: str, kind: str) -> _Shape:
    return {"shape": kind, "locationName": name}


def _structure(members: _Shape, *, required: tuple[str, ...] = (), payload: str = "") -> _Shape:
    return {
        "type": "structure",
        "members": members,
        "required": [*required],
        **({"payload": payload} if payload else {}),
    }


def _elements(kind: str) -> _Shape:
    """A list whose items have no element around them."""
    return {"type": "list", "member": {"shape": kind}, "flattened": True}


def _operation(name: str, method: str, uri: str) -> _Shape:
    return {
        "name": name,
        "http": {"method": method, "requestUri": uri},
        "input": {"shape": f"{name}Request"},
        "output": {"shape": f"{name}Output"},
    }


_STRING: _Shape = {"shape": "String"}
_BUCKET = {"shape": "String", "location": "uri", "locationName": "Bucket", "contextParam": {"name": "Bucket"}}
# Not the empty one: with it a request would be about the bucket.
_KEY = {"shape": "Key", "location": "uri", "locationName": "Key"}
_BUCKET_AND_KEY = {"Bucket": _BUCKET, "Key": _KEY}
_METADATA = {"shape": "Metadata", "location": "headers", "locationName": "x-amz-meta-"}
_OBJECT_HEADERS = {
    "ETag": _header("ETag"),
    "LastModified": _header("Last-Modified", "Timestamp"),
    "ContentLength": _header("Content-Length", "Long"),
    "Metadata": _METADATA,
}
_WHERE = ("Bucket", "Key")

_OPERATIONS = {
    "ListObjectsV2": _operation("ListObjectsV2", "GET", "/{Bucket}?list-type=2"),
    "GetObject": _operation("GetObject", "GET", "/{Bucket}/{Key+}"),
    "HeadObject": _operation("HeadObject", "HEAD", "/{Bucket}/{Key+}"),
    "PutObject": _operation("PutObject", "PUT", "/{Bucket}/{Key+}"),
    "CopyObject": _operation("CopyObject", "PUT", "/{Bucket}/{Key+}"),
    "DeleteObject": _operation("DeleteObject", "DELETE", "/{Bucket}/{Key+}"),
    "GetBucketLifecycleConfiguration": _operation("GetBucketLifecycleConfiguration", "GET", "/{Bucket}?lifecycle"),
    # Asked by botocore itself where an answer looks like "in another region".
    "HeadBucket": _operation("HeadBucket", "HEAD", "/{Bucket}"),
}

_SHAPES = {
    "String": {"type": "string"},
    "Key": {"type": "string", "min": 1},
    "Integer": {"type": "integer"},
    "Long": {"type": "long"},
    "Boolean": {"type": "boolean"},
    "Timestamp": {"type": "timestamp"},
    "Day": {"type": "timestamp", "timestampFormat": "iso8601"},
    "Body": {"type": "blob"},
    "Metadata": {"type": "map", "key": _STRING, "value": _STRING},
    "ListObjectsV2Request": _structure(
        {
            "Bucket": _BUCKET,
            "Prefix": _query("prefix"),
            "StartAfter": _query("start-after"),
            "ContinuationToken": _query("continuation-token"),
            "EncodingType": _query("encoding-type"),  # which botocore asks for and undoes by itself
        },
        required=("Bucket",),
    ),
    "ListObjectsV2Output": _structure(
        {
            "IsTruncated": {"shape": "Boolean"},
            "Contents": {"shape": "Objects"},
            "Name": _STRING,
            "Prefix": _STRING,
            "StartAfter": _STRING,
            "EncodingType": _STRING,
            "KeyCount": {"shape": "Integer"},
            "NextContinuationToken": _STRING,
        }
    ),
    "Objects": _elements("Object"),
    "Object": _structure(
        {"Key": _STRING, "LastModified": {"shape": "Timestamp"}, "ETag": _STRING, "Size": {"shape": "Long"}}
    ),
    "GetObjectRequest": _structure(_BUCKET_AND_KEY, required=_WHERE),
    "GetObjectOutput": _structure({"Body": {"shape": "Body", "streaming": True}, **_OBJECT_HEADERS}, payload="Body"),
    "HeadObjectRequest": _structure(_BUCKET_AND_KEY, required=_WHERE),
    "HeadObjectOutput": _structure(_OBJECT_HEADERS),
    "PutObjectRequest": _structure(
        {
            **_BUCKET_AND_KEY,
            "Body": {"shape": "Body", "streaming": True},
            "ContentType": _header("Content-Type"),
            "Metadata": _METADATA,
        },
        required=_WHERE,
        payload="Body",
    ),
    "PutObjectOutput": _structure({"ETag": _header("ETag")}),
    "CopyObjectRequest": _structure(
        {
            **_BUCKET_AND_KEY,
            "CopySource": _header("x-amz-copy-source"),
            "CopySourceIfUnmodifiedSince": _header("x-amz-copy-source-if-unmodified-since", "Timestamp"),
            "MetadataDirective": _header("x-amz-metadata-directive"),
            "Metadata": _METADATA,
        },
        required=(*_WHERE, "CopySource"),
    ),
    "CopyObjectOutput": _structure({"CopyObjectResult": {"shape": "CopyObjectResult"}}, payload="CopyObjectResult"),
    "CopyObjectResult": _structure({"ETag": _STRING, "LastModified": {"shape": "Timestamp"}}),
    "DeleteObjectRequest": _structure(_BUCKET_AND_KEY, required=_WHERE),
    # Nothing in it; but without an output botocore takes an error under a 200 for success.
    "DeleteObjectOutput": _structure({}),
    "HeadBucketRequest": _structure({"Bucket": _BUCKET}, required=("Bucket",)),
    "HeadBucketOutput": _structure({}),
    "GetBucketLifecycleConfigurationRequest": _structure({"Bucket": _BUCKET}, required=("Bucket",)),
    "GetBucketLifecycleConfigurationOutput": _structure({"Rules": _element("Rule", "Rules")}),
    "Rules": _elements("Rule"),
    "Rule": _structure(
        {
            "ID": _STRING,
            "Status": _STRING,
            "Prefix": _STRING,
            "Filter": {"shape": "Filter"},
            "Expiration": {"shape": "Expiration"},
        }
    ),
    "Filter": _structure({"Prefix": _STRING, "And": {"shape": "FilterParts"}}),
    "FilterParts": _structure({"Prefix": _STRING}),
    "Expiration": _structure({"Date": {"shape": "Day"}, "Days": {"shape": "Integer"}}),
}

_SERVICE = {
    "metadata": {
        "apiVersion": "2006-03-01",
        "endpointPrefix": "s3",
        "protocol": "rest-xml",
        "protocols": ["rest-xml"],
        "serviceFullName": "Amazon Simple Storage Service",
        "serviceId": "S3",
        "signatureVersion": "s3",
        "auth": ["aws.auth#sigv4"],
        "uid": "s3-2006-03-01",
    },
    "operations": _OPERATIONS,
    "shapes": _SHAPES,
}

# Path style, at the endpoint given, signed as S3 wants it: the path is encoded once.
_RULES = {
    "version": "1.0",
    "parameters": {
        "Bucket": {"type": "String", "required": False, "documentation": ""},
        "Endpoint": {"type": "String", "builtIn": "SDK::Endpoint", "required": True, "documentation": ""},
        "Region": {"type": "String", "builtIn": "AWS::Region", "required": True, "documentation": ""},
    },
    "rules": [
        {
            "type": "endpoint",
            "conditions": [],
            "endpoint": {
                "url": "{Endpoint}/{Bucket}",
                "properties": {
                    "authSchemes": [
                        {
                            "name": "sigv4",
                            "signingName": "s3",
                            "signingRegion": "{Region}",
                            "disableDoubleEncoding": True,
                        }
                    ]
                },
                "headers": {},
            },
        }
    ],
}

MODELS = {"service-2": _SERVICE, "endpoint-rule-set-1": _RULES}
"""What botocore asks for of a service, by the name of its type."""

_REGIONS = {
    "partition": "aws",
    "dnsSuffix": "amazonaws.com",
    "regionRegex": ".*",
    "defaults": {"hostname": "{service}.{region}.{dnsSuffix}"},
    "regions": {},
    "services": {},
}
DATA = {
    "endpoints": {"version": 3, "partitions": [_REGIONS]},
    "partitions": {"version": "1.1", "partitions": []},
    "sdk-default-configuration": {"version": 1, "base": {}, "modes": {}},
}
"""What it asks for beside that, by name: there is one region, and no more to know of it."""
