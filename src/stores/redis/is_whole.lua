-- 1 if all of the table is there, or nothing.
local rows, about, deletes, keys, topics, order = unpack(KEYS)
local parts = redis.call('EXISTS', rows, deletes, keys, topics, order)
return parts == redis.call('HEXISTS', about, 'exists') * 5 and 1 or 0
