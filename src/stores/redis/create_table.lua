-- True if the table did not exist, also to one who asks again since no answer came.
local rows, about, deletes, keys, topics, order = unpack(KEYS)
local token = ARGV[1]
if redis.call('HSETNX', about, 'exists', token) == 0 then
    return redis.call('HGET', about, 'exists') == token
end
keep(rows, deletes, keys, topics, order)
return true
