-- The rest of `write.lua`: creates and deletes.
local in_topic = topic_bytes .. key
local oldest, outdated = next_version - REMEMBERED - 1, {}
if what == 'create' then
    if not exists then
        begin()
    end
    note(next_version, made)
    if deleted then
        step({'HSET', deletes, key, deleted}, 'HDEL', deletes, key)
    end
    step({'HDEL', rows, key}, 'HSET', rows, key, row)
    step({'ZREM', keys, key}, 'ZADD', keys, 0, key)
    step({'ZREM', topics, in_topic}, 'ZADD', topics, 0, in_topic)
else
    outdated = call('ZRANGEBYSCORE', order, '-inf', oldest, 'LIMIT', 0, 10)
    note_in_any_case(next_version, made, function()
        step({'HSET', rows, key, packed}, 'HDEL', rows, key)
    end)
    -- Alone it says nothing, also after the row was created again.
    step(nil, 'ZADD', order, next_version, key)
    step({'ZADD', keys, 0, key}, 'ZREM', keys, key)
    step({'ZADD', topics, 0, in_topic}, 'ZREM', topics, in_topic)
    step({'HDEL', deletes, key}, 'HSET', deletes, key, version_bytes)
end
if message then
    step(nil, 'PUBLISH', of_topic, message)
end
for _, forgotten in ipairs(refusal and {} or outdated) do
    redis.pcall('ZREM', order, forgotten)
    redis.pcall('HDEL', deletes, forgotten)
end
return outcome(reply)
