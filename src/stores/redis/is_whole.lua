-- Returns 1 if all parts of the table exist, or none.
local rows, about, deletes, keys, topics, order = unpack(KEYS)
local parts = 0
for _, key in ipairs({rows, deletes, keys, topics, order}) do
    parts = parts + redis.call('EXISTS', key)
end
return parts == redis.call('HEXISTS', about, 'exists') * 5 and 1 or 0
