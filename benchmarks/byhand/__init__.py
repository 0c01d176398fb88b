"""What a careful engineer writes by hand for one model: msgspec, numpy, the same session, uvicorn.

They check types as far as msgspec does, and no more.
"""
