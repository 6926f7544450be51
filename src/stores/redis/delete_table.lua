-- True if the table existed, also to one who asks again since no answer came. Its last version and unique number stay.
local rows, about, deletes, keys, topics, order = unpack(KEYS)
local token = ARGV[1]
if redis.call('HDEL', about, 'exists') == 0 then
    return redis.call('HGET', about, 'deleted') == token
end
redis.call('HSET', about, 'deleted', token)
if redis.call('HINCRBY', about, 'version', 1) == 1 then
    redis.call('HSET', about, 'incarnation', token)
end
for _, key in ipairs({rows, keys, topics, deletes, order}) do
    redis.call('UNLINK', key)
end
return true
